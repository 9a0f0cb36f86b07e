"""The part of the configuration that learns: pre-training, the head, and meta-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fss.tasks.views import Augment


@dataclass
class PretrainConfig:
    """Self-supervised pre-training of the backbone on the corpus (backbone.weights=pretrain)."""

    steps: int = 200
    batch: int = 32
    """Images a step, over all workers; their objects are contrasted with one another."""
    size: int = 96
    """Side of the crops, pixels; a multiple of 8."""
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 20
    precision: str = "fp32"
    """bf16 where the processor computes in it (GPUs, AMX, AVX-512 BF16); elsewhere it is ten times slower."""
    log_every: int = 20
    checkpoint_every: int = 200


@dataclass
class ModelConfig:
    """The head that is meta-trained, or a read-out that needs no training."""

    name: str = "umtfss"
    path: str | None = None
    """Folder of an exported model (name=trained); `model=PATH` on the command line sets both."""
    options: dict[str, Any] = field(default_factory=dict)
    """The head's own arguments, as its class in fss/models takes them; presets in conf/model show them."""


@dataclass
class TrainConfig:
    """Meta-training with DeepSpeed under Ray Train."""

    tasks: str = "shards"
    """Where tasks come from: `shards` = the pair stage's, the same in every epoch; `stream` = paired while training,
    by the rules of `pair`, anew in every epoch, nothing is written; `labelled` = episodes of labelled images of the
    classes that `fold` does not test."""
    images: str | None = None
    """The labelled images (tasks=labelled): a text file below dataset.root or any path; none = the set's train list."""
    ratio: float = 1.0
    """Share of the labelled images that is used (tasks=labelled): 0.05, 0.1, 0.2, 1."""
    unlabelled: int = 0
    """Unlabelled images beside each task, of which only a head's losses on single images learn (model=mining)."""
    unlabelled_run: str | None = None
    """Folder of a run whose corpus they come from; none = this run's."""
    mix: dict[str, float] = field(default_factory=dict)
    """Shares of the episodes that are tasks of other runs, in thousandths, by a run's folder (its pair stage that
    finished last) or a pair stage's: {runs/splits: 0.5}; what they leave is of `tasks`. Held-out tasks mix alike."""
    seed: int | None = None
    """Of the head's first weights, the order of tasks and their augmentation; none = the run's seed."""
    init_from: str | None = None
    """Exported model, or run's folder, whose head training starts from; steps and optimiser start anew."""
    steps: int = 800
    batch: int = 16
    """Episodes a step, over all workers."""
    accumulate: int = 1
    """Parts in which each worker computes its share of a batch, one after the other, to save memory."""
    optimizer: str = "adamw"
    """`adamw`, `sgd`, or `mixed` = AdamW for the head's transformers and SGD for the rest, in one step."""
    lr: float = 1e-3
    """Learning rate of AdamW."""
    sgd_lr: float = 1e-2
    """Learning rate of SGD (momentum 0.9)."""
    weight_decay: float = 1e-2
    """Of AdamW; gains, markers, biases and norms are not decayed."""
    sgd_weight_decay: float = 1e-4
    schedule: str = "cosine"
    """How the learning rate falls after the warm-up: `cosine`, `poly` (power 0.9), `step` (a tenth after
    each third of the steps) or `constant`."""
    warmup: int = 50
    clip: float = 1.0
    loss: str = "cross_entropy_dice"
    ema: float = 0.99
    """Decay of the averaged weights, which are what is measured and exported; 0 = no averaging."""
    tune: list[str] = field(default_factory=list)
    """Parts of the backbone that are trained as well, by the beginning of their parameters' names; needs
    features=fresh. Its normalisation statistics stay as they are."""
    tune_factor: float = 0.1
    """Learning rate of tuned parts, as a share of lr."""
    gradient_checkpointing: bool = False
    """Whether a tuned backbone keeps no activations but computes them again for the backward pass."""
    compile: bool = False
    """Whether the head is compiled by torch.compile; needs a C++ compiler on CPUs."""
    precision: str = "fp32"
    zero_stage: int = 1
    features: str = "cached"
    """`cached` = features of a fixed number of views of each image are computed once and reused; `fresh` = a new view
    for every use, through the backbone every time."""
    views: int = 2
    """Fixed views of each image (features=cached)."""
    augment: Augment = field(default_factory=Augment)
    cache_gib: float = 4.0
    """Memory for cached features of each worker, GiB; what does not fit is computed again."""
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 20
    loader_workers: int = 0
    """Processes of each worker that read, decode and augment ahead; 0 = a thread of the worker itself."""
    holdout: int = 64
    """Pseudo-tasks kept out of training, on which candidates are measured without any label; 0 = none."""
    candidates: int = 8
    """Times that the averaged weights are measured and kept during training, evenly spaced, the last step included."""
    select: str = "holdout"
    """Which candidate is exported: `holdout` = the one of the best IoU on the held-out pseudo-tasks, `last`."""
    examples: int = 6
    """Held-out tasks whose predictions are drawn at every such time, always the same ones; 0 = none."""
    register: str | None = None
    """Name in MLflow's model registry under which the exported model becomes a new version; none = not registered."""
    alias: str | None = None
    """Alias that the registered version is given, e.g. champion."""
    max_failures: int = 2
    """Times that Ray Train restarts the workers after a crash, from the last checkpoint."""


#: The parts of 1 in which the shares of train.mix are counted, so that they are exact.
SHARES = 1000


def units(share: float) -> int:
    """A share of train.mix in `SHARES`."""
    return round(share * SHARES)


def own_units(mix: Mapping[str, float]) -> int:
    """What of `SHARES` train.mix leaves to a run's own tasks."""
    return SHARES - sum(map(units, mix.values()))
