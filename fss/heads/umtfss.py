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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.attention import TransformerBlock, sine_places
from fss.heads.parts.correlations import LEVELS, compared, correlation_maps
from fss.heads.parts.head import Head, zero
from fss.heads.parts.options import LearnedOptions, divided, multiple_of
from fss.heads.parts.shots import for_each_shot, prior_mask
from fss.heads.parts.support_prototypes import SupportPrototypes, SupportTokens
from fss.heads.parts.tokens import flat_masks, flat_tokens, middle_features, to_tokens, unit_grid
from fss.heads.parts.walk import affinity_walk
from fss.keys import SHARE_OR_NONE, at_least, key, one_of


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head; the defaults are ours, those of another `variant` are its own."""

    variant: str = key("ours", one_of(names=lambda: (*VARIANTS,)))
    """ours, paper or released: what holds for options that are not given, see `VARIANTS`."""
    dim: int = key(64, multiple_of(8))
    """Width of all tokens, a multiple of `heads` and of 8."""
    heads: int = key(4, at_least(1))
    """Of every attention."""
    blocks: int = key(1, at_least(1))
    """Repetitions of both attentions."""
    expansion: int = key(2, at_least(1))
    """Width of the MLPs, in `dim`."""
    dropout: float = key(0.0, SHARE_OR_NONE)
    """Of the blocks and of the classifier's channels, 0 to 1."""
    reduction_dropout: float = key(0.0, SHARE_OR_NONE)
    """Of the channels of the reduced features, 0 to 1."""
    reductions: str = key("shared", one_of("shared", "separate"))
    """Weights that reduce the backbone's features to `dim`: shared by query and support, or separate."""
    unit_levels: bool = True
    """Levels are scaled to length 1 before they are reduced, with a group norm after; else neither."""
    positions: bool = False
    """Sine positions in the query's self-attention."""
    attention: str = key("prototype", one_of("prototype", "vanilla"))
    """What the query attends to: prototype, or vanilla for every support token."""
    foreground_prototypes: int = key(20, at_least(1), when={"attention": ("prototype",)})
    """The most prototypes of the foreground."""
    background_prototypes: int = key(50, at_least(1), when={"attention": ("prototype",)})
    """The same of the background."""
    unit_prototypes: bool = key(False, when={"attention": ("prototype",)})
    """Prototypes are scaled to length 1."""
    raw_prototypes: bool = key(False, when={"attention": ("prototype",)})
    """A side with no more tokens than prototypes is not clustered."""
    marker: bool = True
    """A learned vector for each side, added to its prototypes."""
    maps: bool = True
    """The query gets the correlation maps (`fss.heads.correlation`) next to the prior mask."""
    shots: str = key("joint", one_of("joint", "average"))
    """joint: one support of all shots' tokens; average: the mean of the logits of each shot alone."""

    @classmethod
    def absent(cls, given: Mapping[str, Any]) -> Self:
        """Those of the variant."""
        return replace(cls(), **VARIANTS.get(given.get("variant", "ours"), {}))

    def problems(self) -> list[str]:
        """What does not go together."""
        return divided(self.dim, self.heads)


_RELEASED: dict[str, Any] = {
    "dim": 256,
    "heads": 8,
    "blocks": 2,
    "expansion": 3,
    "dropout": 0.1,
    "reduction_dropout": 0.5,
    "reductions": "separate",
    "unit_levels": False,
    "positions": True,
    "unit_prototypes": True,
    "raw_prototypes": True,
    "marker": False,
    "maps": False,
}
#: What each variant has other than ours.
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "paper": _RELEASED | {"foreground_prototypes": 50, "background_prototypes": 100, "unit_prototypes": False},
    "released": _RELEASED,
}


class UMTFSS(Head):
    """See the module's docstring."""

    transformers: ClassVar[tuple[str, ...]] = ("self_attention", "cross_attention")

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.options = chosen = options
        self.lends = "smoothed" if chosen.maps else None
        dim, middle = chosen.dim, channels["low"] + channels["mid"]
        number = 1 if chosen.reductions == "shared" else 2
        self.reduce = nn.ModuleList(_reduction(middle, chosen) for _ in range(number))
        self.merge_query = nn.Conv2d(2 * dim + 1 + 8 * chosen.maps, dim, 1)
        self.merge_support = nn.Conv2d(2 * dim, dim, 1)
        self.self_attention, self.cross_attention = (
            nn.ModuleList(
                TransformerBlock(dim, chosen.heads, chosen.expansion, chosen.dropout) for _ in range(chosen.blocks)
            )
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
        middle = middle_features(features, self.options.unit_levels).to(self.merge_query.weight.dtype)
        made = {"middle": self.reduce[-1](middle), "high": features["high"]}
        if len(self.reduce) > 1:
            made["query"] = self.reduce[0](middle)
        return made | {"tokens": unit_grid(features, LEVELS)} if self.options.maps else made

    def focus(self, query: Features) -> Features:
        """With `maps`, `walk`: (B, N, N), one step of the query's own affinity walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))} if self.options.maps else query

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """`globe`: (B, d), the mean of the foreground; `tokens0`, `used0`, ..: what block 0, .. attends to; `high`.

        With `maps` also what `compared` makes of them. Where shots are averaged, (B, K, ...): of each alone.
        """
        if self.options.shots != "average":
            return self._shown(support, masks)
        alone = {name: values.flatten(0, 1)[:, None] for name, values in support.items()}
        shown = self._shown(alone, masks.flatten(0, 1)[:, None])
        return {name: values.unflatten(0, masks.shape[:2]) for name, values in shown.items()}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        if self.options.shots == "average":
            return self._averaged(query, support, masks)
        return self._joint(query, support, masks)

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """`dead_prototypes`, see `SupportPrototypes.dead_share`; nothing with attention to all tokens."""
        if not isinstance(self.summary, SupportPrototypes):
            return {}
        shares: list[float] = []
        measure = self.summary.dead_share
        handle = self.summary.register_forward_hook(lambda _, given, out: shares.append(measure(given[1], out[1])))
        try:
            self(query, support, masks)
        finally:
            handle.remove()
        return {"dead_prototypes": sum(shares) / len(shares)}

    def _averaged(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """Mean logits of the shots that show any foreground; of all, where none does."""
        episodes, shots = masks.shape[:2]
        alone = self._joint(
            {name: for_each_shot(values, shots) for name, values in query.items()},
            {name: values.flatten(0, 1) for name, values in support.items()},
            masks.flatten(0, 1)[:, None],
        )
        shown = (masks[:, :, 1] > 0).flatten(2).any(dim=2)
        weight = (shown | ~shown.any(dim=1, keepdim=True)).float()
        weight = (weight / weight.sum(dim=1, keepdim=True))[..., None, None, None]
        return (alone.unflatten(0, (episodes, shots)) * weight).sum(dim=1)

    def _shown(self, support: Features, masks: torch.Tensor) -> Features:
        """Self-attention in the supports and what sums them up, block by block."""
        x = support["middle"]
        globe = masked_average(x, masks[:, :, 1].to(x.dtype))
        wide = globe[:, None, :, None, None].expand_as(x)
        s = to_tokens(self.merge_support(torch.cat([x, wide], dim=2).flatten(0, 1)))
        weights, shown = flat_masks(masks), {"globe": globe, "high": support["high"]}
        for place, own in enumerate(self.self_attention):
            s = own(s, s)
            tokens, used = self.summary(s.reshape(len(masks), -1, s.shape[2]), weights.transpose(1, 2))
            shown |= {f"tokens{place}": tokens.to(s.dtype), f"used{place}": used}
        return shown | compared(flat_tokens(support["tokens"]), weights) if self.options.maps else shown

    def _joint(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        size, globe = query["high"].shape[-2:], support["globe"]
        wide = globe[..., None, None].expand(-1, -1, *size)
        extra = self._maps(query, support, masks).to(globe.dtype)
        x_query = self.merge_query(torch.cat([query.get("query", query["middle"]), wide, extra], dim=1))
        return self.classify(self._attend(x_query, support)).float()

    def _maps(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """The prior mask, with `maps` also the correlation maps: (B, 1 or 9, h, w)."""
        prior = prior_mask(query["high"], support["high"], masks[:, :, 1])
        if not self.options.maps:
            return prior
        maps = correlation_maps(query["tokens"].flatten(2), support, query["walk"])
        return torch.cat([prior, maps.unflatten(2, query["high"].shape[-2:])], dim=1)

    def _attend(self, query: torch.Tensor, support: Features) -> torch.Tensor:
        """Self-attention in the query, then attention to what sums up the supports."""
        q, places = to_tokens(query), None
        if self.options.positions:
            places = sine_places(query.shape[2], query.shape[3], q.shape[2], q.device).to(q.dtype)
        for place, (own, cross) in enumerate(zip(self.self_attention, self.cross_attention, strict=True)):
            q = cross(own(q, q, places=places), support[f"tokens{place}"], support[f"used{place}"])
        return q.transpose(1, 2).reshape(query.shape)


def _reduction(channels: int, chosen: Options) -> nn.Sequential:
    norm = nn.GroupNorm(8, chosen.dim) if chosen.unit_levels else nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, chosen.dim, 1), norm, nn.ReLU(), nn.Dropout2d(chosen.reduction_dropout))


def _summary(chosen: Options) -> SupportPrototypes | SupportTokens:
    if chosen.attention == "vanilla":
        return SupportTokens(chosen.dim, chosen.marker)
    numbers = (chosen.background_prototypes, chosen.foreground_prototypes)
    return SupportPrototypes(chosen.dim, numbers, chosen.marker, chosen.unit_prototypes, chosen.raw_prototypes)


def masked_average(features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Average of (B, K, C, h, w) features under (B, K, h, w) weights, over cells and shots together: (B, C)."""
    total = (features * share[:, :, None]).sum(dim=(1, 3, 4))
    return total / share.sum(dim=(1, 2, 3)).clamp_min(1e-3)[:, None]


HEAD = UMTFSS
