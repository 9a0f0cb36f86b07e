"""Which precisions this processor computes in, and what may be computed in the lower one."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


#: Whether this processor multiplies matrices of bfloat16; None where torch cannot tell.
_MULTIPLIES: bool | None = None
if hasattr(torch.cpu, "get_capabilities"):
    _MULTIPLIES = any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def warn_of_slow(precision: str, device: torch.device, key: str = "precision") -> None:
    """Say so if `precision` is one that this processor can only emulate."""
    if precision == "bf16" and device.type == "cpu" and _MULTIPLIES is False:
        logger.warning("this processor has no bf16 arithmetic, emulating it is slow; set %s=fp32", key)


def coarse(values: torch.Tensor) -> torch.Tensor:
    """`values` of which nothing is learned, to be multiplied: as bfloat16 where the processor has that, else as given.

    Its products are three times as fast as float32's, and those of vectors of length 1 wrong by 0.004 at most. Values
    that a gradient passes stay as they are, and so do those of programs for other machines.
    """
    learned = torch.is_grad_enabled() and values.requires_grad
    if not _MULTIPLIES or values.device.type != "cpu" or learned or torch.compiler.is_exporting():
        return values
    return values.bfloat16()
