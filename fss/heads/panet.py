"""PANet: cosine to prototypes, trained with prototype alignment.

Source: PANet (Wang et al., ICCV 2019): "Prototype learning" (masked average pooling), "Non-parametric
metric learning" (cosine times alpha = 20) and "Prototype alignment regularization (PAR)", of weight 1.
Where this departs:

* the paper trains the backbone; ours is frozen, so that a 1x1 projection of its features learns in its stead. It starts
  as an isometry as far as `dim` allows it, so that training starts near the prototype read-out;
* alpha is 20 times a learned gain that starts at 1, for `residual` needs something that starts at 0;
* masks are pooled as shares of cells, where the paper enlarges the features to the image; a boundary that is void
  belongs to neither side, where the released code has it in the support's background;
* a support without foreground has no say in the foreground's prototype and is not aligned; its background counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.shots import aligned, cell_weights, cosine_logits
from fss.heads.prototype import known_levels, unit_grid


class PANet(Head):
    """See the module's docstring.

    Args:
        channels: of the backbone's levels.
        levels: of one grid, whose features are projected side by side.
        dim: channels of the projection.
        project: without it there is nothing to learn: training refuses, and what is left is the prototype read-out.
        align: weight of the alignment's loss; 0 does without.
    """

    def __init__(
        self,
        channels: dict[str, int],
        levels: Sequence[str] = ("mid", "high"),
        dim: int = 256,
        project: bool = True,
        align: float = 1.0,
    ):
        super().__init__()
        self.levels = known_levels(levels, channels)
        self.align = align
        self.project: nn.Module = nn.Identity()
        self.gain: nn.Module = nn.Identity()
        if project:
            self.project = nn.Conv2d(sum(channels[level] for level in self.levels), dim, 1, bias=False)
            self.gain = Gain()
            nn.init.orthogonal_(self.project.weight)

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, dim, h, w)."""
        joint = unit_grid(features, self.levels)
        if isinstance(self.project, nn.Conv2d):
            joint = joint.to(self.project.weight.dtype)
        return {"tokens": self.project(joint)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        weights = cell_weights(masks).transpose(1, 2).flatten(2)
        tokens = support["tokens"].transpose(1, 2).flatten(2).transpose(1, 2)
        prototypes = weights.to(tokens.dtype) @ tokens
        return self.gain(cosine_logits(query["tokens"], prototypes))

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The logits, and as `align` the supports segmented by the prototypes of the query under its own prediction.

        Raises:
            ValueError: if there is nothing to learn.
        """
        self._check_learns()
        seen, shots = self.prepare(query, support, masks)
        logits = self.match(seen, shots, masks)
        if not self.align:
            return logits, ()
        sides = logits.detach().argmax(dim=1, keepdim=True)
        predicted = torch.cat([sides == 0, sides == 1], dim=1).float()
        back, target = aligned(seen["tokens"], shots["tokens"], predicted, masks)
        return logits, (Auxiliary("align", back, self.align, target),)

    def silence(self) -> None:
        """Start with logits of zero: the gain learns to be heard, the alignment trains the projection."""
        self._check_learns()
        nn.init.zeros_(self.gain.share)  # type: ignore[arg-type]

    def _check_learns(self) -> None:
        if not isinstance(self.gain, Gain):
            raise ValueError(
                "model panet: expected something to learn, got project=false and a frozen backbone; set "
                "model.options.project=true, or evaluate model=prototype, which is the same untrained"
            )


class Gain(nn.Module):
    """Multiplies by a learned number that starts at 1; a module of its own, for ZeRO-3 gathers weights by modules."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.ones(1))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` times the number."""
        return self.share.float() * logits
