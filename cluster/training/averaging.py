"""Exponential moving averages of trained weights, also when ZeRO-3 spreads the weights over the ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from cluster.training import checkpoint


class Average:
    """Exponential moving average of the trained parameters, in float32; the plain weights if the decay is 0."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values: dict[str, torch.Tensor] = {}
        if decay:
            with checkpoint.whole(list(module.parameters())):
                self.values = {name: p.detach().float().clone() for name, p in _trained(module)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights; early steps count more, so that the start is forgotten."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        with checkpoint.whole(list(module.parameters())):
            for name, parameter in _trained(module):
                self.values[name].lerp_(parameter.detach().float(), 1 - decay)

    @contextlib.contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """The module with averaged weights inside, its own ones afterwards; on all ranks together.

        Under ZeRO-3 they are spread over the ranks as ever: a forward pass gathers what it needs, and parts it again.
        """
        parameters = list(module.parameters())
        with checkpoint.whole(parameters, write=True):
            own = {name: parameter.detach().clone() for name, parameter in _trained(module)}
            _copy(module, self.values)
        try:
            yield
        finally:
            with checkpoint.whole(parameters, write=True):
                _copy(module, own)

    def state(self) -> dict[str, torch.Tensor]:
        """The averages, for a checkpoint."""
        return {name: value.cpu() for name, value in self.values.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """The averages of a checkpoint."""
        for name, value in state.items():
            if name in self.values:
                self.values[name].copy_(value)


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in module.named_parameters() if p.requires_grad]


@torch.no_grad()
def _copy(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in _trained(module):
        if name in values:
            parameter.copy_(values[name])
