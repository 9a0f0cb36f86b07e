"""What a head may be able to do besides: it opts in by having the methods, and whoever needs them asks `isinstance`.

A head that wraps another (`fss.heads.parts.residual`) can do what the other can.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from fss.backbones import Features
from fss.heads.parts.head import Head


@runtime_checkable
class Fits(Protocol):
    """Knows nothing before it has seen unlabelled images.

    Whoever measures it gives the rows that `describe` makes of each of them to `fit`, once. What it learned is in its
    `state_dict`, of shapes that the constructor fixes, so that one fitted copy serves all workers.
    """

    def describe(self, embedded: Features) -> torch.Tensor:
        """(B, D) float32, what `fit` wants to know of images that `embed` has seen."""

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Set the buffers from (n, D) float32 descriptions of n unlabelled images."""


@runtime_checkable
class SeesBlank(Protocol):
    """Knows what position looks like in features only when it has seen an image of nothing else.

    Whoever builds it for a backbone shows it `Extractor.blank`. What it learned is in its `state_dict`.
    """

    def see_blank(self, features: Features) -> None:
        """Set the buffers from levels (1, C, h, w) of one black image."""


@runtime_checkable
class Recalls(Protocol):
    """Looks up regions of an unlabelled corpus when it is asked, if its options say so (`looks_up_regions`).

    Whoever makes the index gives the rows that `prototypes` makes of single regions to `fill`, once, at most as many as
    the option `index_size` says. They are in its `state_dict`.
    """

    def prototypes(self, embedded: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, C) float32 rows of regions.

        Args:
            embedded: what `embed` made of B images.
            masks: (B, 2, h, w) shares of what is not the region and of what is.
        """

    def fill(self, rows: np.ndarray) -> None:
        """Set the buffers from at most (index_size, 2, C) rows; ValueError for another shape."""


@runtime_checkable
class Studies(Protocol):
    """Looks at images of training tasks before training starts."""

    studies: int
    """How many; 0 = none, as its options are."""

    def study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """Set buffers from images of training tasks with their masks.

        Args:
            images: levels (n, C, h, w) and (n, 2, h, w) shares of background and foreground, some at a time, always the
                same ones, however often they are gone through.
            seed: of what is drawn.
        """


@runtime_checkable
class Settles(Protocol):
    """Changes buffers after each training step, by what all workers noted in it."""

    def noted(self) -> torch.Tensor | None:
        """What `learn` noted since the last `settle`, to be added up over workers; None if it notes nothing."""

    def settle(self, noted: torch.Tensor) -> None:
        """Change buffers by the sum of what all workers `noted`: so on all the same."""


@runtime_checkable
class Silences(Protocol):
    """Can start with logits of zero: what it is added to is heard alone at first."""

    def silence(self) -> None:
        """Make the logits zero, and keep every gradient alive: none may stay zero after one step."""


@runtime_checkable
class Ways(Protocol):
    """Knows several classes together."""

    def margins(self, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
        """See the function `margins`."""


def margins(head: Head, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
    """(E, N, h, w) foreground minus background logit of every way of E episodes of N `ways`.

    The arguments are those of `Head.match`, a row for each way, an episode's one after the other. A head without `Ways`
    is asked for each way alone, as the field extends two-class models. The answer is the way with the largest margin,
    or the background where none is above zero.
    """
    if isinstance(head, Ways):
        return head.margins(query, support, masks, ways)
    logits = head.match(query, support, masks)
    return (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, ways))
