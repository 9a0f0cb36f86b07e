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

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.gain import Gain
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.options import A_LEVEL, LearnedOptions
from fss.heads.parts.shots import aligned, cell_weights, cosine_logits
from fss.heads.parts.tokens import unit_grid
from fss.keys import FROM_ZERO, at_least, key


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    levels: tuple[str, ...] = key(("mid", "high"), A_LEVEL)
    """Of one grid, whose features are projected side by side."""
    dim: int = key(256, at_least(1), when={"project": (True,)})
    """Channels of the projection."""
    project: bool = True
    """Without it there is nothing to learn: training refuses, and what is left is the prototype read-out."""
    align: float = key(1.0, FROM_ZERO, when={"project": (True,)})
    """Weight of the alignment's loss; 0 does without."""


class PANet(Head):
    """See the module's docstring."""

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.align = options.levels, options.align
        self.project: nn.Module = nn.Identity()
        self.gain: nn.Module = nn.Identity()
        if options.project:
            self.project = nn.Conv2d(sum(channels[level] for level in self.levels), options.dim, 1, bias=False)
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


HEAD = PANet
