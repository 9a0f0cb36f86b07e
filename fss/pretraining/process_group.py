"""What an objective over a whole batch asks of workers that each hold a share of it.

Data-parallel training averages the workers' gradients. That is the whole batch's gradient where the loss is a mean over
samples; contrast and batch normalisation are not, for there each sample's loss depends on all the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ProcessGroup:
    """Who shares a batch; the default is one worker that holds all of it.

    `gather` takes a tensor (...) that has the same shape in every worker and returns (workers, ...), all of theirs by
    rank; every worker has to call it. Its gradient is the sum of what all workers' losses send back.
    """

    gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor[None]
    rank: int = 0
    number: int = 1


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all workers' equal shares; torch's own (SyncBatchNorm) refuses CPUs.

    While it does not train it is `nn.BatchNorm2d`.
    """

    group = ProcessGroup()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W), standardised by the mean and variance over all workers, B, H and W."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        seen = x.float()
        own = torch.stack([seen.mean((0, 2, 3)), seen.var((0, 2, 3), correction=0)])
        means, variances = self.group.gather(own).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        with torch.no_grad():
            number = self.group.number * seen[:, 0].numel()
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            rate = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * number / max(number - 1, 1), rate)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (seen * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def share_norms(module: nn.Module, group: ProcessGroup) -> None:
    """Let each `nn.BatchNorm2d` inside `module` see all workers' shares; names, weights and modes stay as they are."""
    for name, part in module.named_children():
        if isinstance(part, nn.BatchNorm2d):
            sizes = (part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
            shared = SharedBatchNorm(*sizes).train(part.training)
            shared.load_state_dict(part.state_dict())
            shared.group = group
            setattr(module, name, shared)
        else:
            share_norms(part, group)
