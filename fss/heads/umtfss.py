"""The UMTFSS head: self-attention, then cross-attention from the query to prototypes of the support.

Source: UMTFSS (AAAI 2024), section "Meta-training FSS from Noisy Meta Tasks", Eqs. 1, 2, 5 and 6. `variant` sets what
paper, released code and ours have different, see `VARIANTS`; where the paper is silent, `paper` follows the code. All
variants depart from both:

* the self-attended support really feeds the prototypes (in the released code its result is dropped), by the same
  weights as the query's;
* self-attention is plain scaled dot product, not deformable; the backbone's grid is small enough;
* K shots are averaged in the global prototype and the prior by cells, not by shots, so an empty support weighs nothing;
* hash planes and first centroids are fixed, see `fss.heads.parts.support_prototypes`;
* layers without a gradient there (two projections, the support's own attention, the keys' bias) do not exist here.

With `residual: smoothed` (`fss.heads.parts.residual`), our preset, training starts at the training-free read-out
instead of below the floor.

Letters: B episodes, K shots, h x w grid, d = dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.correlation import LEVELS, correlation_maps
from fss.heads.parts.attention import Block, sine_places
from fss.heads.parts.head import Head, zero
from fss.heads.parts.shots import prior_mask
from fss.heads.parts.support_prototypes import SupportPrototypes, SupportTokens
from fss.heads.prototype import affinity_walk, flat_masks, flat_tokens, middle_features, to_tokens, unit_grid


@dataclass(frozen=True)
class Settings:
    """Options of the head; the defaults are ours."""

    dim: int = 64
    """Width of all tokens, a multiple of `heads` and of 8."""
    heads: int = 4
    blocks: int = 1
    """Repetitions of both attentions."""
    expansion: int = 2
    """Width of the MLPs, in `dim`."""
    dropout: float = 0.0
    """Of the blocks and of the classifier's channels, 0 to 1."""
    reduction_dropout: float = 0.0
    """Of the channels of the reduced features, 0 to 1."""
    reductions: str = "shared"
    """Weights that reduce the backbone's features to `dim`: shared by query and support, or separate."""
    unit_levels: bool = True
    """Levels are scaled to length 1 before they are reduced, with a group norm after; else neither."""
    positions: bool = False
    """Sine positions in the query's self-attention."""
    attention: str = "prototype"
    """What the query attends to: prototype, or vanilla for every support token."""
    foreground_prototypes: int = 20
    background_prototypes: int = 50
    unit_prototypes: bool = False
    """Prototypes are scaled to length 1."""
    raw_prototypes: bool = False
    """A side with no more tokens than prototypes is not clustered."""
    marker: bool = True
    """A learned vector for each side, added to its prototypes."""
    maps: bool = True
    """The query gets the correlation maps (`fss.heads.correlation`) next to the prior mask."""
    shots: str = "joint"
    """joint: one support of all shots' tokens; average: the mean of the logits of each shot alone."""


_RELEASED = Settings(
    dim=256,
    heads=8,
    blocks=2,
    expansion=3,
    dropout=0.1,
    reduction_dropout=0.5,
    reductions="separate",
    unit_levels=False,
    positions=True,
    unit_prototypes=True,
    raw_prototypes=True,
    marker=False,
    maps=False,
)
#: Defaults by `variant`.
VARIANTS = {
    "ours": Settings(),
    "paper": replace(_RELEASED, foreground_prototypes=50, background_prototypes=100, unit_prototypes=False),
    "released": _RELEASED,
}
_CHOICES = {"reductions": ("shared", "separate"), "attention": ("prototype", "vanilla"), "shots": ("joint", "average")}


def settings(variant: str = "ours", **options: Any) -> Settings:
    """Those of a variant, with `options` in place of its own.

    Raises:
        ValueError: for an unknown variant or value.
        TypeError: for an unknown option.
    """
    if variant not in VARIANTS:
        raise ValueError(f"expected model.options.variant of {', '.join(VARIANTS)}, got {variant!r}")
    found = replace(VARIANTS[variant], **options)
    for name, choices in _CHOICES.items():
        if getattr(found, name) not in choices:
            raise ValueError(f"expected model.options.{name} of {', '.join(choices)}, got {getattr(found, name)!r}")
    if found.dim % found.heads or found.dim % 8:
        raise ValueError(
            f"expected model.options.dim a multiple of 8 and of model.options.heads={found.heads}, got {found.dim}"
        )
    if min(found.foreground_prototypes, found.background_prototypes) < 1:
        raise ValueError(
            f"expected at least 1 prototype a side, got {found.background_prototypes} of background and "
            f"{found.foreground_prototypes} of foreground: set model.options.foreground_prototypes=20"
        )
    return found


class UMTFSS(Head):
    """See the module's docstring; `options` are those of `Settings`."""

    transformers = ("self_attention", "cross_attention")

    def __init__(self, channels: dict[str, int], variant: str = "ours", **options: Any):
        super().__init__()
        self.settings = chosen = settings(variant, **options)
        self.embeds_smoothed = chosen.maps
        dim, middle = chosen.dim, channels["low"] + channels["mid"]
        number = 1 if chosen.reductions == "shared" else 2
        self.reduce = nn.ModuleList(_reduction(middle, chosen) for _ in range(number))
        self.merge_query = nn.Conv2d(2 * dim + 1 + 8 * chosen.maps, dim, 1)
        self.merge_support = nn.Conv2d(2 * dim, dim, 1)
        self.self_attention, self.cross_attention = (
            nn.ModuleList(Block(dim, chosen.heads, chosen.expansion, chosen.dropout) for _ in range(chosen.blocks))
            for _ in range(2)
        )
        self.summary = _summary(chosen)
        self.classify = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Dropout2d(chosen.dropout), nn.Conv2d(dim, 2, 1)
        )

    def silence(self) -> None:
        """Start the last layer at zero; the first step moves it, and with it the others."""
        zero(self.classify[-1])

    def embed(self, features: Features) -> Features:
        """`middle`: (B, d, h, w), with separate reductions also `query`; `high` for the prior; for maps, `tokens`."""
        middle = middle_features(features, self.settings.unit_levels).to(self.merge_query.weight.dtype)
        found = {"middle": self.reduce[-1](middle), "high": features["high"]}
        if len(self.reduce) > 1:
            found["query"] = self.reduce[0](middle)
        return found | {"tokens": unit_grid(features, LEVELS)} if self.settings.maps else found

    def focus(self, query: Features) -> Features:
        """With `maps`, `walk`: (B, N, N), one step of the query's own affinity walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))} if self.settings.maps else query

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        if self.settings.shots == "average":
            return self._averaged(query, support, masks)
        return self._joint(query, support, masks)

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """`dead_prototypes`, see `SupportPrototypes.dead_share`; nothing with attention to all tokens."""
        if not isinstance(self.summary, SupportPrototypes):
            return {}
        found: list[float] = []
        measure = self.summary.dead_share
        handle = self.summary.register_forward_hook(lambda _, given, out: found.append(measure(given[1], out[1])))
        try:
            self(query, support, masks)
        finally:
            handle.remove()
        return {"dead_prototypes": sum(found) / len(found)}

    def _averaged(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """Mean logits of the shots that show any foreground; of all, where none does."""
        episodes, shots = masks.shape[:2]
        alone = self._joint(
            {name: values.repeat_interleave(shots, dim=0) for name, values in query.items()},
            {name: values.flatten(0, 1)[:, None] for name, values in support.items()},
            masks.flatten(0, 1)[:, None],
        )
        shown = (masks[:, :, 1] > 0).flatten(2).any(dim=2)
        weight = (shown | ~shown.any(dim=1, keepdim=True)).float()
        weight = (weight / weight.sum(dim=1, keepdim=True))[..., None, None, None]
        return (alone.unflatten(0, (episodes, shots)) * weight).sum(dim=1)

    def _joint(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        size, x_support = query["high"].shape[-2:], support["middle"]
        kind = x_support.dtype
        globe = masked_average(x_support, masks[:, :, 1].to(kind))
        wide = globe[..., None, None].expand(-1, -1, *size)
        extra = self._maps(query, support, masks).to(kind)
        x_query = self.merge_query(torch.cat([query.get("query", query["middle"]), wide, extra], dim=1))
        wide = globe[:, None, :, None, None].expand_as(x_support)
        x_support = self.merge_support(torch.cat([x_support, wide], dim=2).flatten(0, 1))
        return self.classify(self._attend(x_query, x_support, masks)).float()

    def _maps(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """The prior mask, with `maps` also the correlation maps: (B, 1 or 9, h, w)."""
        prior = prior_mask(query["high"], support["high"], masks[:, :, 1])
        if not self.settings.maps:
            return prior
        q, s = query["tokens"].flatten(2), flat_tokens(support["tokens"])
        maps = correlation_maps(q, s, flat_masks(masks), query["walk"]).unflatten(2, query["high"].shape[-2:])
        return torch.cat([prior, maps], dim=1)

    def _attend(self, query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Self-attention in query and supports, then attention from the query to what sums up the supports."""
        q, s = to_tokens(query), to_tokens(support)
        places = None
        if self.settings.positions:
            places = sine_places(query.shape[2], query.shape[3], q.shape[2], q.device).to(q.dtype)
        shares = flat_masks(masks).transpose(1, 2)
        for own, cross in zip(self.self_attention, self.cross_attention, strict=True):
            q, s = own(q, q, places=places), own(s, s)
            tokens, used = self.summary(s.reshape(len(q), -1, s.shape[2]), shares)
            q = cross(q, tokens.to(q.dtype), used)
        return q.transpose(1, 2).reshape(query.shape)


def _reduction(channels: int, chosen: Settings) -> nn.Sequential:
    norm = nn.GroupNorm(8, chosen.dim) if chosen.unit_levels else nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, chosen.dim, 1), norm, nn.ReLU(), nn.Dropout2d(chosen.reduction_dropout))


def _summary(chosen: Settings) -> SupportPrototypes | SupportTokens:
    if chosen.attention == "vanilla":
        return SupportTokens(chosen.dim, chosen.marker)
    numbers = (chosen.background_prototypes, chosen.foreground_prototypes)
    return SupportPrototypes(chosen.dim, numbers, chosen.marker, chosen.unit_prototypes, chosen.raw_prototypes)


def masked_average(features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Average of (B, K, C, h, w) features under (B, K, h, w) weights, over cells and shots together: (B, C)."""
    total = (features * share[:, :, None]).sum(dim=(1, 3, 4))
    return total / share.sum(dim=(1, 2, 3)).clamp_min(1e-3)[:, None]
