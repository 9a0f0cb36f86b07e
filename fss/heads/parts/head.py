"""What every head is: a function of single images first, then of a query and its supports."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

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


class Head(nn.Module, abc.ABC):
    """Base of all heads: `forward` is `match` of what `embed`, `focus` make of a query and `embed`, `show` of supports.

    The division is what makes evaluation and prediction fast: an image stands in many episodes, so `embed` and `focus`
    are computed once for it and kept, `show` once for the supports of many queries, and only `match` runs once an
    episode. Training calls `forward`.

    A head is made of the channels of the backbone, by level, and its own `Options`. What only some heads can do is in
    `fss.heads.parts.capabilities`.
    """

    #: What tables call it; none = its name.
    title: ClassVar[str] = ""
    #: Whether it is meta-trained; others are floors of a backbone.
    trained: ClassVar[bool] = True
    #: Its logits are cosines times its option `scale`: heads that learn can be added to it.
    is_readout: ClassVar[bool] = False
    #: Its options where a learned head is added to it.
    beside_learned: ClassVar[Mapping[str, float]] = {"scale": 1.0}
    #: It looks at level `colour` besides, (B, 3, h, w) in [0, 1] on the grid of `high`; see `Extractor.colours`.
    sees_colour: ClassVar[bool] = False
    #: What its forward pass does that is no graph of tensor operations, in words; none = it is one. `torch.compile` and
    #: exports to other runtimes need a graph.
    no_graph: ClassVar[str] = ""
    #: Names of the submodules that are transformers: `train.optimizer=mixed` gives them AdamW, the rest SGD.
    transformers: ClassVar[tuple[str, ...]] = ()
    #: The read-out whose tensors its embeddings hold under the same names, so that they are computed once.
    lends: str | None = None
    #: The geometry of the backbone's cells, see `fss.grid`; `fss.heads.build` sets it.
    corners: bool

    def embed(self, features: Features) -> Features:
        """What the head computes of an image on its own, in either role: levels (B, C, h, w) to tensors (B, ...).

        The default takes the features as they are.
        """
        return features

    def focus(self, query: Features) -> Features:
        """What it computes besides of the query alone, from the query's embedding; the default adds nothing."""
        return query

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """What it computes of K supports whatever the query, from (B, K, ...) of their embeddings: tensors (B, ...).

        The default takes the embeddings as they are. `masks` as of `match`.
        """
        return support

    @abc.abstractmethod
    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits, background first; on a finer grid of the same geometry if the head decodes.

        Args:
            query: tensors (B, ...) that `focus` returned.
            support: tensors (B, ...) that `show` returned.
            masks: (B, K, 2, h, w) shares of background and foreground, see `fss.heads`.
        """

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
        """What `match` takes of query and support, from their features: `focus` of the one, `show` of the other."""
        flat = self.embed({name: values.flatten(0, 1) for name, values in support.items()})
        shots = {name: values.unflatten(0, masks.shape[:2]) for name, values in flat.items()}
        return self.focus(self.embed(query)), self.show(shots, masks)

    def forward(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits of features; see `fss.heads` for the arguments."""
        return self.match(*self.prepare(query, support, masks), masks)


def zero(last: nn.Module) -> None:
    """Set the weights of a head's last layer to zero: what most heads do to be silent."""
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
