"""The workers of a training job, as the library's objectives over whole batches ask for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

from fss.pretraining.process_group import ProcessGroup


def process_group() -> ProcessGroup:
    """Those of this process's group; a process without a group works alone."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return ProcessGroup()
    return ProcessGroup(_Gather.apply, distributed.get_rank(), distributed.get_world_size())


class _Gather(torch.autograd.Function):
    """(...) -> (workers, ...); torch's own with a gradient moved between modules from version to version."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        own = tensor.contiguous()
        rows = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(rows, own)
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        return summed[distributed.get_rank()]
