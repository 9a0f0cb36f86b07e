"""What becomes of gradients before a step, the same with ZeRO's optimisers and without; and what is told of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cluster.training import checkpoint
from cluster.training.meter import Figures


def settings(precision: str, zero_stage: int) -> dict[str, Any]:
    """DeepSpeed's settings by which gradients are computed in `precision` and added up in float32 all the same.

    Stage 1 in bf16 is run as stage 2, which keeps what stage 1 keeps and divides the gradients too: for stage 1 in bf16
    with sums in float32 DeepSpeed 0.19 takes an optimiser whose state no other stage can read.
    """
    if precision != "bf16":
        return {"zero_optimization": {"stage": zero_stage}, "bf16": {"enabled": False}}
    return {
        "zero_optimization": {"stage": max(zero_stage, 2)},
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
    }


class Gradients:
    """The gradients of an engine's steps; what it says is the same on all ranks, which call it together.

    A parameter that got no gradient on any rank stays as it is, with its moments, as it does under torch's optimisers:
    DeepSpeed gives it one of zeros, by which it would decay. ZeRO's optimisers skip a step whose gradients are not
    finite; without ZeRO this is seen to here.
    """

    def __init__(self, engine: Any, moments: tuple[str, ...]):
        self._engine, self._moments = engine, moments
        self._trained = [p for p in engine.module.parameters() if p.requires_grad]
        self._got: set[int] = set()
        for number, parameter in enumerate(self._trained):
            parameter.register_post_accumulate_grad_hook(functools.partial(self._note, number))
        self._norms: list[float] = []

    def step(self) -> None:
        """The engine's step after the last part of a batch."""
        skipped, zero = self._engine.skipped_steps, self._engine.zero_optimization_stage() > 0
        idle = self._idle()
        kept = checkpoint.values(self._engine, idle, self._moments) if zero and idle else []
        norm = math.nan if zero else self._settle(idle)
        self._engine.step()
        if zero and self._engine.skipped_steps == skipped:
            norm = float(self._engine.get_global_grad_norm())
        for parameter, values in zip(idle, kept, strict=False):
            checkpoint.put(self._engine, parameter, values)
        self._norms.append(norm)

    def _note(self, number: int, _: torch.Tensor) -> None:
        self._got.add(number)

    def _idle(self) -> list[nn.Parameter]:
        """Parameters that got no gradient since the last step, on any rank."""
        reached = torch.zeros(len(self._trained), dtype=torch.uint8, device=self._engine.device)
        reached[list(self._got)] = 1
        self._got.clear()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(reached, torch.distributed.ReduceOp.MAX)
        return [p for p, got in zip(self._trained, reached.tolist(), strict=True) if not got]

    def _settle(self, idle: Sequence[nn.Parameter]) -> float:
        """The norm of the gradients; those that do not count are dropped, all of them if some are not finite."""
        for parameter in idle:
            parameter.grad = None
        norm = float(nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None]))
        if not math.isfinite(norm):
            self._engine.zero_grad()
        return norm

    def figures(self) -> Figures:
        """Since the last call: steps that were skipped, and the mean norm, before clipping, of those that were not."""
        made = [norm for norm in self._norms if math.isfinite(norm)]
        figures = {"skipped_steps": float(len(self._norms) - len(made))}
        self._norms = []
        return figures | ({"grad_norm": sum(made) / len(made)} if made else {})
