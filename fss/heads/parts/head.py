"""What every head is: a function of single images first, then of a query and its supports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.losses import Loss


class Auxiliary(NamedTuple):
    """A further prediction that training scores: `weight` times the loss of `logits` (B, C, h, w).

    Its target is `target`, (B, C, m, m) shares of the classes in [0, 1], or the query's truth where that is None. What
    scores it is `loss`, or the training's own where that is None; then C is 2, background and foreground. `name` is the
    figure under which its loss is shown.
    """

    name: str
    logits: torch.Tensor
    weight: float = 1.0
    target: torch.Tensor | None = None
    loss: Loss | None = None


class Head(nn.Module):
    """Base of all heads. `forward` is `match` of what `embed` (and, for the query, `focus`) made of each image.

    The division is what makes evaluation fast: an image stands in many episodes, so `embed` and `focus` are computed
    once for it and kept, and only `match` runs once an episode. Training calls `forward`.

    A head that `needs_fit` knows nothing before it has seen unlabelled images: whoever measures it gives the rows that
    `describe` makes of each of them to `fit`, once. What it learned is in its `state_dict`, of shapes that the
    constructor fixes, so that one fitted copy serves all workers.
    """

    needs_fit = False
    #: Images of training tasks that it wants to `study` before training starts; 0 = none.
    studies = 0
    #: Its embeddings hold what the smoothed read-out needs (`fss.heads.prototype`), under the same names.
    embeds_smoothed = False
    #: Names of the submodules that are transformers: `train.optimizer=mixed` gives them AdamW, the rest SGD.
    transformers: ClassVar[tuple[str, ...]] = ()
    #: The geometry of the backbone's cells, see `fss.grid`; `fss.heads.build` sets it.
    corners = True

    def embed(self, features: Features) -> Features:
        """What the head computes of an image on its own, in either role: levels (B, C, h, w) to tensors (B, ...).

        The default takes the features as they are.
        """
        return features

    def focus(self, query: Features) -> Features:
        """What it computes besides of the query alone, from the query's embedding; the default adds nothing."""
        return query

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits, background first; on a finer grid of the same geometry if the head decodes.

        Args:
            query: tensors (B, ...) that `focus` returned.
            support: tensors (B, K, ...) that `embed` returned.
            masks: (B, K, 2, h, w) shares of background and foreground, see `fss.heads`.
        """
        raise NotImplementedError

    def margins(self, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
        """(E, N, h, w) foreground minus background logit of every way of E episodes of N `ways`.

        The arguments are those of `match`, a row for each way, an episode's one after the other. By default each way is
        asked for alone, as the field extends two-class models; a head that knows several classes overrides it. The
        answer is the way with the largest margin, or the background where none is above zero.
        """
        logits = self.match(query, support, masks)
        return (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, ways))

    def describe(self, embedded: Features) -> torch.Tensor:
        """(B, D) float32, what `fit` wants to know of images that `embed` has seen; of heads that `needs_fit`."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit")

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Set the buffers from (n, D) float32 descriptions of n unlabelled images; of heads that `needs_fit`."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit")

    def study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """Set buffers from images of training tasks with their masks, before training; of heads with `studies`.

        Args:
            images: levels (n, C, h, w) and (n, 2, h, w) shares of background and foreground, some at a time, always the
                same ones, however often they are gone through.
            seed: of what is drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to study")

    def noted(self) -> torch.Tensor | None:
        """What `learn` noted since the last `settle`, to be added up over workers; None if it notes nothing."""
        return None

    def settle(self, noted: torch.Tensor) -> None:
        """Change buffers after a training step, by the sum of what all workers `noted`: so on all the same."""

    def silence(self) -> None:
        """Make the logits zero, and keep every gradient alive: none may stay zero after one step.

        `fss.heads.parts.residual` asks for it: what a silent head is added to is heard alone at first.

        Raises:
            ValueError: by heads that cannot.
        """
        raise ValueError(
            f"expected a head that can start silent, got {type(self).__name__}: set model.options.residual=none"
        )

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """What training scores: the logits of `forward`, and further predictions with targets of their own."""
        return self(query, support, masks), ()

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """Figures of the head's inner life on the arguments of `forward`, which validation logs; none by default.

        `dead_prototypes`, a share in [0, 1], is watched: see `cluster.training.health`.
        """
        return {}

    def prepare(self, query: Features, support: Features, masks: torch.Tensor) -> tuple[Features, Features]:
        """What `match` takes of query and support, from their features: `focus` of the one, `embed` of the other."""
        flat = self.embed({name: values.flatten(0, 1) for name, values in support.items()})
        shots = {name: values.unflatten(0, masks.shape[:2]) for name, values in flat.items()}
        return self.focus(self.embed(query)), shots

    def forward(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits of features; see `fss.heads` for the arguments."""
        return self.match(*self.prepare(query, support, masks), masks)


def check_choices(model: str, **choices: tuple[str, tuple[str, ...]]) -> None:
    """Refuse options of a head, (given, allowed) by name, that are not among those allowed.

    Raises:
        ValueError: naming what is allowed and the key to set.
    """
    for name, (given, allowed) in choices.items():
        if given not in allowed:
            raise ValueError(
                f"model {model}: expected {name} of {', '.join(allowed)}, got {given!r}; set model.options.{name}"
            )


def zero(last: nn.Module) -> None:
    """Set the weights of a head's last layer to zero: what most heads do to be silent."""
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
