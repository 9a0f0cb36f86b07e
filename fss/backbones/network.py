"""What the network of a backbone is: it says itself what its cells are, and which weights are its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import nn

Features = dict[str, torch.Tensor]
"""Levels "low", "mid", "high": (B, C, h, w) floating point; mid and high on one grid."""
State = Mapping[str, torch.Tensor]


class Network(nn.Module):
    """Base of all networks; `forward` takes (B, 3, S, S) ImageNet-normalised images and gives `Features`.

    The constructor takes a name and a stride in pixels, None for the network's own choice, and raises ValueError for a
    stride that it does not have.
    """

    stride: int
    """Pixels from cell to cell of mid and high."""
    channels: dict[str, int]
    """Of each level."""
    corners: bool
    """Where the cells lie, see `fss.grid`: outermost centres on the image's border, or cells that tile the image."""
    left_out: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the keys in checkpoints of this network that it knowingly does without."""

    @classmethod
    def for_weights(cls, name: str, stride: int | None, state: State) -> Self:
        """The network that `state`, with any prefix, fits; by default weights do not shape it."""
        return cls(name, stride)

    @classmethod
    def torchvision_name(cls, name: str) -> str:
        """What torchvision calls the network whose ImageNet weights these are; by default the same."""
        return name

    @classmethod
    def own_part(cls, key: str) -> tuple[str, int]:
        """What this network calls the tensor `key` of a checkpoint, and which part of its first axis that tensor is.

        Keys come with whatever wraps them, and keep it. By default each is a whole tensor of the same name.
        """
        return key, 0

    def fitted(self, state: State) -> dict[str, torch.Tensor]:
        """The network's own tensors of a checkpoint as this network holds them; by default as they are."""
        return dict(state)
