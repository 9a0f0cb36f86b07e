"""Which precisions this processor computes in."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


def warn_of_slow(precision: str, device: torch.device, key: str = "precision") -> None:
    """Say so if `precision` is one that this processor can only emulate."""
    if precision == "bf16" and device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        if not (able.get("amx_bf16") or able.get("avx512_bf16")):
            logger.warning("this processor has no bf16 arithmetic, emulating it is slow; set %s=fp32", key)
