"""Keys of the backbone's self-supervised pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config.backbone import PRECISIONS
from fss.keys import FROM_ZERO, POSITIVE, at_least, key, one_of, ranged


@dataclass
class PretrainConfig:
    """Self-supervised pre-training of the backbone on the corpus (backbone.weights=pretrain)."""

    steps: int = key(200, at_least(1))
    """Optimiser steps."""
    batch: int = key(32, at_least(1))
    """Images a step, over all workers; their objects are contrasted with one another."""
    size: int = key(96, ranged("a multiple of 8 from 8", lambda value: value >= 8 and value % 8 == 0))
    """Side of the crops, pixels; a multiple of 8."""
    lr: float = key(2e-3, POSITIVE)
    """Learning rate of AdamW."""
    weight_decay: float = key(0.05, FROM_ZERO)
    """Of AdamW."""
    warmup: int = key(20, FROM_ZERO)
    """Steps in which the learning rate rises."""
    precision: str = key("fp32", one_of(*PRECISIONS))
    """bf16 where the processor computes in it (GPUs, AMX, AVX-512 BF16); elsewhere it is ten times slower."""
    log_every: int = key(20, at_least(1))
    """Steps between two entries of the journal."""
    checkpoint_every: int = key(200, at_least(1))
    """Steps between two checkpoints."""
