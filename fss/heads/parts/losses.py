"""Segmentation losses on logits and shares: a cell's target is how much of it is background and how much foreground.

Void pixels are in neither share, so they pull on nothing (the released UMTFSS code penalises predictions there).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (B, C, M, M) logits against (B, C, M, M) shares in [0, 1], over all that is not void.

    C is 2 for background and foreground, any other number will do. Of each episode, then of the batch: so a batch
    teaches the same in however many parts or workers it is computed.
    """
    summed = -(shares * F.log_softmax(logits.float(), dim=1)).flatten(1).sum(1)
    return (summed / shares.flatten(1).sum(1).clamp_min(1e-6)).mean()


def dice(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """1 - Dice of the foreground probability against the foreground share, squared form, averaged over the batch.

    (Milletari et al. 2016; UMTFSS trains with a two-channel sum of it.)
    """
    known = shares.sum(dim=1)
    probability = logits.float().softmax(dim=1)[:, 1] * known
    overlap = (probability * shares[:, 1]).flatten(1).sum(1)
    size = (probability**2).flatten(1).sum(1) + (shares[:, 1] ** 2).flatten(1).sum(1)
    return (1 - 2 * overlap / size.clamp_min(1e-6)).mean()


def nearness(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Minus the mean of exp(logit) of the right side, logits being negative distances to the sides' prototypes.

    (Pixel-level meta-learner, Lee et al. 2022, Eq. 5 as printed; the mean as in `cross_entropy`.) In [-1, 0].
    """
    summed = -(shares * logits.float().exp()).flatten(1).sum(1)
    return (summed / shares.flatten(1).sum(1).clamp_min(1e-6)).mean()


def cross_entropy_dice(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The sum of both: cross-entropy for calibrated probabilities, Dice so that small things count as much."""
    return cross_entropy(logits, shares) + dice(logits, shares)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "cross_entropy_dice": cross_entropy_dice,
}


def by_name(name: str) -> Loss:
    """The loss called `name`.

    Raises:
        ValueError: if there is none.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a loss of {', '.join(LOSSES)}, got {name!r}{hint}")
    return LOSSES[name]
