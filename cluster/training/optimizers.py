"""Which parameters learn by which rule, and how fast: groups of an optimiser, and learning rates over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from fss.training.optimizers import Mixed

_NO_DECAY = ("gain", "marker", "bias", "norm")


class Keys(Protocol):
    """The keys of `train` that say how parameters learn; those of the other rule may be None."""

    @property
    def optimizer(self) -> str:
        """adamw, sgd or mixed."""

    @property
    def lr(self) -> Any:
        """Of AdamW."""

    @property
    def sgd_lr(self) -> Any:
        """Of SGD."""

    @property
    def weight_decay(self) -> Any:
        """Of AdamW."""

    @property
    def sgd_weight_decay(self) -> Any:
        """Of SGD."""

    @property
    def tune_factor(self) -> Any:
        """Of a tuned backbone, as a share of the head's learning rate."""


def build(module: nn.Module, settings: Keys, transformers: Sequence[str] = (), tuned: str = "backbone.") -> Mixed:
    """The optimiser of every parameter of `module` that is trained, each group named for what is in it.

    `transformers` and `head` are the head's parameters by `train.optimizer` (`mixed`: AdamW for those below a submodule
    that `transformers` names, SGD for the rest; otherwise all are the `head`), `backbone` those whose name begins with
    `tuned`, with the head's learning rate times `train.tune_factor`. Groups of one name have one learning rate; gains,
    markers, biases and norms are groups of their own, because AdamW does not decay them.

    Raises:
        ValueError: for train.optimizer=mixed of a module without transformers, or one with nothing but them.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            place = _place(name, transformers if settings.optimizer == "mixed" else (), tuned)
            plain = parameter.ndim < 2 or any(word in name for word in _NO_DECAY)
            groups.setdefault((place, plain), []).append(parameter)
    places = {place for place, _ in groups}
    if settings.optimizer == "mixed" and not {"head", "transformers"} <= places:
        alone = "sgd" if "head" in places else "adamw"
        raise ValueError(
            "train.optimizer=mixed: expected a head with transformers and other parts, got one "
            f"{'without any' if alone == 'sgd' else 'of nothing else'}; set train.optimizer={alone}"
        )
    return Mixed(
        [{"params": own, "name": place, **_rule(place, plain, settings)} for (place, plain), own in groups.items()]
    )


def _place(name: str, transformers: Sequence[str], tuned: str) -> str:
    if name.startswith(tuned):
        return "backbone"
    own = name.removeprefix("head.")
    return "transformers" if any(own == part or own.startswith(f"{part}.") for part in transformers) else "head"


def _rule(place: str, plain: bool, settings: Keys) -> dict[str, Any]:
    rule = "adamw" if settings.optimizer == "adamw" or place == "transformers" else "sgd"
    factor = settings.tune_factor if place == "backbone" else 1.0
    if rule == "sgd":  # decays everything, as the field's SGD recipes do
        return {"rule": rule, "lr": settings.sgd_lr * factor, "weight_decay": settings.sgd_weight_decay}
    return {"rule": rule, "lr": settings.lr * factor, "weight_decay": 0.0 if plain else settings.weight_decay}


def learning_rate(step: int, steps: int, warmup: int, schedule: str = "cosine") -> float:
    """Factor of the learning rate at `step`: linear over `warmup` steps, then down until `steps`.

    Down by a cosine (`cosine`), by (1 - t)^0.9 of the share t of the way (`poly`: DeepLab, PFENet, CyCTR), to a tenth
    after each third of the way (`step`: PANet, MiningFSS), or not at all (`constant`).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = (step - warmup) / max(steps - warmup, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 0.1 ** math.floor(3 * share)
    return (1 - share) ** 0.9 if schedule == "poly" else 0.5 * (1 + math.cos(math.pi * share))
