"""One optimiser for a module whose parts learn by different rules: AdamW for some groups, SGD for others, in one step.

Both keep their running mean of gradients as `exp_avg`, so that whoever saves the state needs to know of one kind only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

RULES = ("adamw", "sgd")


class Mixed(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) and SGD with momentum, by group; the updates are torch's own.

    A group is a mapping of `params`, `rule` (adamw or sgd) and, where it departs from the defaults, `lr`,
    `weight_decay`, AdamW's `betas` and `eps` or SGD's `momentum`; whatever else it holds (a `name`) is kept. State of a
    parameter: `step` (float scalar), `exp_avg`, and of AdamW `exp_avg_sq`, both in the parameter's shape and dtype.
    SGD's `exp_avg` is torch's momentum buffer, which starts with the first gradient because it is zero before.

    Raises:
        ValueError: for a rule that there is not.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float = 1e-3):
        defaults = {
            "rule": "adamw",
            "lr": lr,
            "weight_decay": 0.0,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "momentum": 0.9,
        }
        super().__init__(groups, defaults)
        for group in self.param_groups:
            if group["rule"] not in RULES:
                raise ValueError(f"expected a rule of {', '.join(RULES)} for each group, got {group['rule']!r}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            chosen = [parameter for parameter in group["params"] if parameter.grad is not None]
            if chosen:  # ZeRO-3 steps one group at a time, with the others empty
                (_adamw if group["rule"] == "adamw" else _sgd)(chosen, self._states(chosen, group["rule"]), group)
        return loss

    def _states(self, chosen: list[torch.Tensor], rule: str) -> list[dict[str, torch.Tensor]]:
        states = [self.state[parameter] for parameter in chosen]
        for parameter, state in zip(chosen, states, strict=True):
            for kind in ("exp_avg", "exp_avg_sq") if rule == "adamw" else ("exp_avg",):
                if kind not in state:
                    state[kind] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state.setdefault("step", torch.tensor(0.0))
        return states


def _adamw(chosen: list[torch.Tensor], states: list[dict[str, torch.Tensor]], group: dict[str, Any]) -> None:
    adamw(
        chosen,
        [parameter.grad for parameter in chosen],  # type: ignore[misc]
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],  # counted up in there
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _sgd(chosen: list[torch.Tensor], states: list[dict[str, torch.Tensor]], group: dict[str, Any]) -> None:
    sgd(
        chosen,
        [parameter.grad for parameter in chosen],  # type: ignore[misc]
        [state["exp_avg"] for state in states],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
