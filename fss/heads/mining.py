"""MiningFSS: prototypes rectified by the training images, and latent classes mined for a joint training.

Source: "Mining Latent Classes for Few-shot Segmentation" (Yang et al., ICCV 2021). Its mining branch, global background
and rectification were never released; where the paper is silent this says what is done. Where this departs:

* the paper trains the backbone; ours is frozen (unless `train.tune` names parts of it), so that a 1x1 projection of its
  features learns in its stead, as in PANet's head. It is linear, so that a projected mean of features is the mean
  of projected ones: the index of training images holds features once and is right for all weights. Its channels have
  either sign, which is what the paper removes the last ReLU for;
* features are of length 1 in each cell of a level;
* latent classes are those of the frozen features, and images are annotated when they are trained on instead of
  beforehand: the same masks, for any view and any corpus, and nothing to store;
* the auxiliary branch has group normalisation, so that a step does not depend on who computes which part of it;
* sigma is `scale` times a learned gain that starts at 1, for `residual` needs something that starts at 0;
* the moving average of the background moves once a step, by the mean of the step's episodes, and is divided by the sum
  of its weights: its first steps follow the episodes instead of a start that has no meaning;
* the most relevant region of an image is that of one latent class, the background's included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts import losses
from fss.heads.parts.gain import Gain
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.mined import TrainingMemory, annotate, prototypes
from fss.heads.parts.options import A_LEVEL, LearnedOptions, multiple_of
from fss.heads.parts.shots import cosine_logits
from fss.heads.parts.tokens import unit_grid
from fss.keys import FROM_ZERO, SHARE_OR_NONE, at_least, key

_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    levels: tuple[str, ...] = key(("mid",), A_LEVEL)
    """Of one grid, whose features are projected side by side; the paper's is `mid` (layer3)."""
    dim: int = key(256, at_least(1))
    """Channels of the projection."""
    scale: float = 20.0
    """sigma of Eq. 5; 20 in the paper, 10 in the released baseline."""
    background: float = key(0.9, SHARE_OR_NONE)
    """w of Eq. 7, the share of the global background prototype; 0 does without it."""
    momentum: float = key(0.999, SHARE_OR_NONE, when={"background": True})
    """m of Eq. 6."""
    mine: float = key(1.0, FROM_ZERO)
    """lambda of Eq. 1, the weight of the latent classes' loss; 0 does without their branch."""
    clusters: int = key(5, at_least(1))
    """K, latent classes besides the background (5 for PASCAL, 15 for COCO in the paper)."""
    width: int = key(64, multiple_of(_GROUPS), when={"mine": True})
    """Channels inside of the auxiliary branch, a multiple of 8."""
    rectify: int = key(4, FROM_ZERO)
    """N, similar training images that rectify a foreground prototype; 0 does without."""
    beta: float = key(0.2, SHARE_OR_NONE, when={"rectify": True})
    """Of Eq. 8."""
    images: int = key(512, at_least(1))
    """Training images that are studied for latent classes and kept in the index."""

    @property
    def learns_single_images(self) -> bool:
        """See `LearnedOptions`: their latent classes."""
        return self.mine > 0

    @property
    def keeps_features(self) -> bool:
        """See `LearnedOptions`: the index of regions."""
        return self.rectify > 0 or super().keeps_features


class MiningFSS(Head):
    """See the module's docstring."""

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.scale = options.levels, options.scale
        self.share, self.weight = options.background, options.mine
        self.rectify, self.beta = options.rectify, options.beta
        self.studies = options.images if options.mine or options.rectify else 0
        total, kept = sum(channels[level] for level in self.levels), options.images if options.rectify else 0
        self.project = nn.Conv2d(total, options.dim, 1, bias=False)
        self.gain = Gain()
        self.kept = TrainingMemory(total, options.dim, options.clusters, kept, options.momentum)
        self.mine = branch(options.dim, options.width, 1 + options.clusters) if options.mine else None
        nn.init.orthogonal_(self.project.weight)

    def study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """Latent classes and the index of regions; see `Studies.study` and `TrainingMemory.study`."""
        self.kept.study(_Tokens(images, self.levels), seed)

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, dim, h, w), and `image`: (B, D) mean feature, by which images are looked up in the index."""
        return self._embedded(unit_grid(features, self.levels))

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, in evaluation with rectified foregrounds; see `Head.match`."""
        return self._compared(query, self._prototypes(support, masks))

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The logits, and as `mined` the latent classes of the cells of query and supports (section 3.3.2).

        Raises:
            RuntimeError: before `study`, if anything is to be studied.
        """
        if self.studies and not self.kept.studied:
            raise RuntimeError(
                "model mining: expected a head that has studied training images, call study first; "
                "model.options.mine=0 and model.options.rectify=0 do without"
            )
        own = unit_grid(query, self.levels)
        theirs = unit_grid({name: values.flatten(0, 1) for name, values in support.items()}, self.levels)
        seen, flat = self._embedded(own), self._embedded(theirs)
        shots = {name: values.unflatten(0, masks.shape[:2]) for name, values in flat.items()}
        logits = self._compared(seen, self._prototypes(shots, masks))
        if self.mine is None:
            return logits, ()
        classes = self.mine(torch.cat([seen["tokens"], flat["tokens"]])).float()
        target = annotate(torch.cat([own, theirs]), self.kept.representatives)
        return logits, (Auxiliary("mined", classes, self.weight, target, losses.cross_entropy),)

    def noted(self) -> torch.Tensor | None:
        """Counts and sums of background prototypes; see `Settles.noted`."""
        return self.kept.noted if self.share else None

    def settle(self, noted: torch.Tensor) -> None:
        """Move the global background prototype; see `Settles.settle`."""
        self.kept.settle(noted)

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """`mined_share` of the query's cells in a latent class other than the background; `background_cosine`, of the
        supports' own background to the global one."""
        figures: dict[str, float] = {}
        if self.mine is not None:
            target = annotate(unit_grid(query, self.levels), self.kept.representatives)
            figures["mined_share"] = float(1 - target[:, 0].mean())
        if self.share:
            _, shots = self.prepare(query, support, masks)
            current = _mean(*self._shots(shots, masks))[0][:, 0]
            figures["background_cosine"] = float(
                nn.functional.cosine_similarity(current, self.kept.background[None]).mean()
            )
        return figures

    def silence(self) -> None:
        """Start with logits of zero: the gain learns to be heard, the auxiliary branch trains the projection."""
        nn.init.zeros_(self.gain.share)

    def _embedded(self, grid: torch.Tensor) -> Features:
        return {"tokens": self.project(grid.to(self.project.weight.dtype)), "image": grid.mean(dim=(2, 3))}

    def _compared(self, query: Features, sides: torch.Tensor) -> torch.Tensor:
        return self.gain(cosine_logits(query["tokens"], sides, self.scale))

    def _prototypes(self, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, C) of background and foreground, means over shots, rectified where that is due (section 3.4)."""
        alone, there = self._shots(support, masks)
        if self.rectify and not self.training:
            alone = torch.stack([alone[:, :, 0], self._rectified(alone[:, :, 1], support["image"])], dim=2)
        mean, any_there = _mean(alone, there)
        if not self.share:
            return mean
        if self.training:
            self.kept.note(mean[:, 0], any_there[:, 0])
        return torch.stack([self.kept.fused(mean[:, 0], self.share), mean[:, 1]], dim=1)

    def _shots(self, support: Features, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K, 2, C) prototypes of each shot alone (Eq. 2), and whether it shows that side at all, (B, K, 2) bool."""
        alone = prototypes(support["tokens"].flatten(0, 1), masks.flatten(0, 1))
        return alone.unflatten(0, masks.shape[:2]), masks.amax(dim=(3, 4)) > 0

    def _rectified(self, foreground: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """(B, K, C) foregrounds of shots whose images look like (B, K, D)."""
        rectified = self.kept.rectified(
            foreground.flatten(0, 1), images.flatten(0, 1), self._map, self.rectify, self.beta
        )
        return rectified.view_as(foreground)

    def _map(self, means: torch.Tensor) -> torch.Tensor:
        return self.project(means.to(self.project.weight.dtype)[:, :, None, None])[:, :, 0, 0]


class _Tokens:
    """Unit tokens of images beside their masks, as often as they are gone through."""

    def __init__(self, images: Iterable[tuple[Features, torch.Tensor]], levels: Sequence[str]):
        self.images, self.levels = images, levels

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((unit_grid(features, self.levels), shares) for features, shares in self.images)


def branch(dim: int, width: int, classes: int) -> nn.Sequential:
    """Three convolutions, all but the last normalised and rectified: the auxiliary branch (section 4.1)."""
    layers: list[nn.Module] = []
    for inputs in (dim, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, classes, 1))


def _mean(alone: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 2, C) means over the shots that show a side, and whether any does, (B, 2) bool."""
    weights = there.float()[..., None]
    return (alone * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1), there.any(dim=1)


HEAD = MiningFSS
