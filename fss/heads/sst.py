"""SST: the support first segments itself, and its features take a step down the gradient of that loss.

Source: Self-Supervised Tuning (Zhu et al., IJCAI 2020). The paper leaves open which features are used, the shapes of
comparator and decoder, the reduction of the inner loss and whether the outer gradient flows through the inner one; each
is an option or stated below. Where this departs:

* the backbone is frozen, so that a projection of its features learns in its stead: R_s and R_q are the projected ones;
* losses are on the grid of the features, where the masks are shares of cells; the trainer enlarges the query's logits;
* a support without the thing (a distractor) has no say.

The gradient is taken by autograd, with respect to the features alone, also where nothing else records one: under
`torch.no_grad` and `torch.inference_mode`. It is computed in float32 whatever the weights' type. It depends on a
support and its mask, which meet only in `match`: nothing of it is kept between episodes.

Letters: B episodes, K shots, N = B K supports, h x w grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.heads.parts.head import Auxiliary, Head, zero
from fss.heads.parts.options import A_LEVEL, LearnedOptions
from fss.heads.parts.shots import shot_means
from fss.heads.parts.tokens import unit
from fss.keys import FROM_ZERO, at_least, key, one_of

Result = TypeVar("Result")
FUSIONS = ("iou", "mean", "max")
REDUCTIONS = ("sum", "mean")
ORDERS = ("first", "second")
#: Weight of a support whose self-segmentation misses the thing altogether: heard only where all do.
_MISSED = 1e-6


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    levels: tuple[str, ...] = key(("mid", "high"), A_LEVEL)
    """Of one grid, whose features are projected side by side."""
    dim: int = key(64, at_least(1))
    """Channels everywhere inside."""
    step: float = key(1.0, FROM_ZERO)
    """Length of the inner step as a share of the gradient (the paper: 1); 0 does without."""
    reduction: str = key("sum", one_of(*REDUCTIONS), when={"step": True})
    """Of the inner loss over cells: `sum` or `mean`. With the mean each cell's gradient is divided by the number of
    cells, hundreds, and a step of 1 moves nothing; so the sum is the default."""
    order: str = key("first", one_of(*ORDERS), when={"step": True})
    """`first` takes the inner gradient for a constant, `second` trains through it."""
    fusion: str = key("iou", one_of(*FUSIONS))
    """Of K shots: `iou` (Eq. 14: responses weighted by the IoU of the support's self-segmentation), or the `mean` or
    `max` of the shots' segmentations (Table 2)."""
    auxiliary: float = key(1.0, FROM_ZERO)
    """Weight of the self-segmentation's loss in training (the paper: 1); 0 does without."""


class SST(Head):
    """See the module's docstring."""

    no_graph = "takes a gradient inside of its forward pass"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.fusion, self.auxiliary = options.levels, options.fusion, options.auxiliary
        self.project = Convolution(sum(channels[level] for level in self.levels), options.dim, 1)
        self.relation = Relation(options.dim, options.step, options.reduction, options.order == "second")

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, dim, h, w) float32, R of Eqs. 2 and 3."""
        levels = [unit(features[level].float()) * features[level].shape[1] ** 0.5 for level in self.levels]
        return {"tokens": F.relu(self.project(torch.cat(levels, dim=1).to(self.project.weight.dtype))).float()}

    def focus(self, query: Features) -> Features:
        """`own`: (B, dim, h, w), the query's part of the comparison."""
        return {"own": self.relation(self.relation.own, query["tokens"])}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        return self.relation(self._answer, query["own"], support["tokens"], masks)[0]

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The logits, and as `self` the supports segmented by themselves: L_sup (Sec. 4.4), in the trainer's loss."""
        flat = self.embed({name: values.flatten(0, 1) for name, values in support.items()})["tokens"]
        tokens = flat.unflatten(0, masks.shape[:2])
        logits, itself = self.relation(self._whole, self.embed(query)["tokens"], tokens, masks)
        if not self.auxiliary:
            return logits, ()
        shown = masks[:, :, 1].amax(dim=(2, 3)) > 0
        target = (masks * shown[:, :, None, None, None]).flatten(0, 1)
        return logits, (Auxiliary("self", itself, self.auxiliary, target),)

    def silence(self) -> None:
        """Start with logits of zero: the inner gradient is zero then too, until the first step."""
        zero(self.relation.decode.out)

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """`self_iou` and `tuned_iou` of the supports' segmentation by their own prototype, before and after the step.

        `step_length` is how far the features moved, relative to their length. Supports without the thing count 0.
        """
        flat, tune = masks.flatten(0, 1), self.relation.tune
        tokens = self.prepare(query, support, masks)[1]["tokens"].flatten(0, 1)
        tuned, itself = self.relation(tune, tokens, flat)
        again = self.relation(self.relation.segment, tokens, prototypes(tuned, flat))
        moved = (tuned - tokens).flatten(1).norm(dim=1) / tokens.flatten(1).norm(dim=1).clamp_min(1e-6)
        figures = {"self_iou": self_iou(itself, flat), "tuned_iou": self_iou(again, flat), "step_length": moved}
        return {name: float(values.detach().mean()) for name, values in figures.items()}

    def _whole(
        self, query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`_answer` of both images' tokens."""
        return self._answer(self.relation.own(query), support, masks)

    def _answer(
        self, own: torch.Tensor, tokens: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The query's logits (B, 2, h, w) and the supports' own (B K, 2, h, w), from (B, K, dim, h, w) tokens."""
        flat = masks.flatten(0, 1)
        tuned, itself = self.relation.tune(tokens.flatten(0, 1), flat)
        scores = self_iou(itself.detach(), flat).unflatten(0, masks.shape[:2])
        prototype = prototypes(tuned, flat).to(own.dtype).unflatten(0, masks.shape[:2])
        shown = (masks[:, :, 1].sum(dim=(2, 3)) > 0).float()
        return self._fused(own, prototype, scores, shown), itself

    def _fused(
        self, own: torch.Tensor, prototype: torch.Tensor, scores: torch.Tensor, shown: torch.Tensor
    ) -> torch.Tensor:
        """The query's logits from its `own`, (B, K, dim) prototypes, (B, K) scores and which shots show the thing."""
        decode, shots = self.relation.decode, shown.shape[1]
        responses = self.relation.compare(own.repeat_interleave(shots, dim=0), prototype.flatten(0, 1))
        if self.fusion == "iou":
            return decode(averaged(responses.unflatten(0, shown.shape), shot_weights(scores, shown))).float()
        segmentations = decode(responses).float().unflatten(0, shown.shape)
        if self.fusion == "mean":
            return averaged(segmentations, shot_weights(shown, shown))
        return strongest(segmentations, shown)


class Relation(nn.Module):
    """Comparator f_m and decoder f_d, and the inner step through both of them.

    Whatever needs its weights is called through `forward`, in training once a step: ZeRO-3 gathers weights for the
    call of a module and parts them at its end, and the inner gradient needs all of them at once. So this module is
    gathered as a whole (`cluster.training.loop`).

    Args:
        dim: channels.
        step: see `Options`.
        reduction: see `Options`.
        through: whether gradients flow through the inner gradient.
    """

    gathered_whole = True

    def __init__(self, dim: int, step: float, reduction: str, through: bool):
        super().__init__()
        self.step, self.reduction, self.through = step, reduction, through
        self.compare = Comparator(dim)
        self.decode = Decoder(dim)

    def forward(self, do: Callable[..., Result], *tensors: torch.Tensor) -> Result:
        """`do(*tensors)`, which may use the weights."""
        return do(*tensors)

    def own(self, tokens: torch.Tensor) -> torch.Tensor:
        """The part of (B, dim, h, w) features in their comparison, in the weights' type."""
        return self.compare.own(tokens.to(self.compare.own.weight.dtype))

    def segment(self, tokens: torch.Tensor, prototype: torch.Tensor) -> torch.Tensor:
        """Eqs. 13 and 7: (N, 2, h, w) float32 logits of (N, dim, h, w) features compared with (N, dim) prototypes."""
        return self.decode(self.compare(self.compare.own(tokens), prototype)).float()

    def tune(self, tokens: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eqs. 8 to 11: R'_s and S_sup of supports; each support's gradient is its own.

        Args:
            tokens: (N, dim, h, w) float32, R_s.
            masks: (N, 2, h, w) shares.

        Returns:
            (N, dim, h, w) float32 features after the step, and the (N, 2, h, w) float32 logits of the
            self-segmentation before it. Gradients flow through both where they are recorded.
        """
        recorded = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(tokens.device.type, enabled=False):
            if not recorded:  # what was made in inference mode cannot be recorded, a copy can
                tokens, masks = tokens.detach().clone(), masks.clone()
            if not tokens.requires_grad:
                tokens = tokens.detach().requires_grad_()
            logits = self.segment(tokens, prototypes(tokens, masks))
            loss = inner_loss(logits, masks, self.reduction)
            through = recorded and self.through
            (gradient,) = torch.autograd.grad(loss, tokens, retain_graph=recorded, create_graph=through)
        tuned = tokens - self.step * gradient
        return (tuned, logits) if recorded else (tuned.detach(), logits.detach())


class Convolution(nn.Conv2d):
    """A convolution in its input's type: the inner step is computed in float32 by weights of any type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) as of `nn.Conv2d`."""
        return self._conv_forward(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Comparator(nn.Module):
    """Eq. 13, Relation Network's comparison: features and the tiled prototype side by side, through two convolutions.

    The first, 1x1, is the sum of a part of the features, `own`, and of one of the prototype, so that the former is
    computed once an image; the second is 3x3.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.own = Convolution(dim, dim, 1)
        self.other = Convolution(dim, dim, 1, bias=False)
        self.relate = Convolution(dim, dim, 3, padding=1)

    def forward(self, own: torch.Tensor, prototype: torch.Tensor) -> torch.Tensor:
        """The responses M, (N, dim, h, w), from `own` of the features and (N, dim) prototypes."""
        return F.relu(self.relate(F.relu(own + self.other(prototype[:, :, None, None]))))


class Decoder(nn.Module):
    """Eq. 7: two convolutions added to the responses, and a 1x1 to the two sides."""

    def __init__(self, dim: int):
        super().__init__()
        self.first = Convolution(dim, dim, 3, padding=1)
        self.second = Convolution(dim, dim, 3, padding=1)
        self.out = Convolution(dim, 2, 1)

    def forward(self, responses: torch.Tensor) -> torch.Tensor:
        """(N, 2, h, w) logits of (N, dim, h, w)."""
        return self.out(responses + F.relu(self.second(F.relu(self.first(responses)))))


def prototypes(tokens: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Eq. 12: (N, dim), the mean of (N, dim, h, w) features under the foreground of (N, 2, h, w) shares."""
    return shot_means(tokens[:, None], masks[:, None, 1])


def inner_loss(logits: torch.Tensor, masks: torch.Tensor, reduction: str) -> torch.Tensor:
    """Eq. 10: the cross-entropy of (N, 2, h, w) logits against shares, summed over the supports.

    Over the cells of a support it is the sum or the mean; what is void counts as nothing.
    """
    summed = -(masks * F.log_softmax(logits.float(), dim=1)).flatten(1).sum(1)
    return (summed / masks.flatten(1).sum(1).clamp_min(1e-6) if reduction == "mean" else summed).sum()


def self_iou(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """f_IoU of Eq. 14: (N,) of the predicted foreground against the shares, void left out; 0 where both are empty."""
    predicted = (logits[:, 1] > logits[:, 0]).float() * masks.sum(dim=1)
    both = torch.minimum(predicted, masks[:, 1]).flatten(1).sum(1)
    union = torch.maximum(predicted, masks[:, 1]).flatten(1).sum(1)
    return both / union.clamp_min(1e-6)


def shot_weights(scores: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """(B, K) weights in the ratio of the scores, which sum to 1 over the shots that are `shown` (0 or 1).

    Eq. 14 prints no normalisation; Sec. 5.3 has weights "close to one fifth". All of score 0 weigh the same.
    """
    weights = (scores + _MISSED) * shown
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(_MISSED / 2)


def averaged(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w), the sum over shots of (B, K, C, h, w) by (B, K) weights."""
    return (maps * weights.to(maps.dtype)[:, :, None, None, None]).sum(dim=1)


def strongest(logits: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """At every cell the logits of the shot with the largest margin of the foreground, of (B, K, 2, h, w): (B, 2, h, w).

    Shots that are not `shown`, (B, K), only count where none is.
    """
    margin = (logits[:, :, 1] - logits[:, :, 0]).masked_fill((shown == 0)[:, :, None, None], -torch.inf)
    best = margin.argmax(dim=1)[:, None, None].expand(-1, 1, 2, -1, -1)
    return logits.gather(1, best)[:, 0]


HEAD = SST
