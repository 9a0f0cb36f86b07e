"""What the network of a backbone is: it says itself what its cells are, and which weights are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

Features = dict[str, torch.Tensor]
"""Levels "low", "mid", "high": (B, C, h, w) floating point; mid and high on one grid."""
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Renamed:
    """A checkpoint in a network's words, still with what wraps them; `origins` are each one's names in the file.

    `left_out` are names in the file of what the network knowingly does without.
    """

    tensors: dict[str, torch.Tensor]
    origins: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()


class Network(nn.Module):
    """Base of all networks; `forward` takes (B, 3, S, S) ImageNet-normalised images and gives `Features`.

    The constructor takes a name and a stride in pixels, None for the network's own choice, and raises ValueError for a
    stride that it does not have. One that `chooses_levels` also takes `levels`, the numbers of its blocks or stages.
    """

    stride: int
    """Pixels from cell to cell of mid and high."""
    channels: dict[str, int]
    """Of each level."""
    corners: bool
    """Where the cells lie, see `fss.grid`: outermost centres on the image's border, or cells that tile the image."""
    interpolation: str = "bilinear"
    """How the images that it was trained on were stretched, see `fss.imaging.images.INTERPOLATIONS`."""
    chooses_levels: ClassVar[bool] = False
    depth: int = 0
    """Blocks or stages after which levels can be taken, of one that `chooses_levels`."""
    left_out: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the keys in checkpoints of this network that it knowingly does without."""

    @classmethod
    def for_weights(cls, name: str, stride: int | None, state: State, **levels: Any) -> Self:
        """The network that `state`, with any prefix, fits; by default weights do not shape it."""
        return cls(name, stride, **levels)

    @classmethod
    def geometry(cls, name: str) -> bool:
        """`corners` of the network `name`, which is not built for it; by default all of a class have the same."""
        return bool(cls.corners)

    @classmethod
    def torchvision_name(cls, name: str) -> str:
        """What torchvision calls the network whose ImageNet weights these are; by default the same."""
        return name

    @classmethod
    def timm_state(cls, name: str) -> State:
        """timm's own weights of the network, downloaded; ValueError if it has none, or they cannot be had."""
        raise ValueError(f"{name}: timm has weights for its own networks alone; set backbone=timm/NAME")

    @classmethod
    def own_part(cls, key: str) -> tuple[str, int]:
        """What this network calls the tensor `key` of a checkpoint, and which part of its first axis that tensor is.

        Keys come with whatever wraps them, and keep it. By default each is a whole tensor of the same name.
        """
        return key, 0

    @property
    def loaded(self) -> nn.Module:
        """The module whose tensors checkpoints hold; by default the network itself."""
        return self

    def converted(self, given: Renamed, prefix: str) -> Renamed:
        """A checkpoint, whose tensors of this network begin with `prefix`, under its names; by default as it is."""
        return given

    def mend(self, artefacts: float) -> None:
        """From now on replace artefact tokens, see `fss.backbones.artefacts`; by default ValueError: it has none."""
        raise ValueError(
            f"backbone.artefacts: expected none, for only transformers of timm have such tokens, got {artefacts}"
        )

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for images of a size that the network refuses; by default there is none."""

    def fitted(self, state: State) -> dict[str, torch.Tensor]:
        """The network's own tensors of a checkpoint as this network holds them; by default as they are."""
        return dict(state)


def three_of(
    name: str, number: int, usual: Sequence[int], levels: Sequence[int] | None, what: str = "blocks"
) -> list[int]:
    """The levels low, mid and high of a network of so many blocks or stages, counted from 1; `usual` where None.

    Raises:
        ValueError: unless they are three of these in ascending order.
    """
    taken = list(usual if levels is None else levels)
    if len(taken) != 3 or taken != sorted(set(taken)) or not 1 <= taken[0] <= taken[-1] <= number:
        raise ValueError(
            f"{name}: expected three {what} of 1 to {number} as levels low, mid and high, got {taken};"
            " set backbone.levels"
        )
    return taken
