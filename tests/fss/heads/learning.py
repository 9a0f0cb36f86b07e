"""Tiny episodes from which something can be learned, and training on them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from fss import heads
from fss.heads.parts import losses
from fss.heads.parts.capabilities import Settles, Studies
from fss.training.step import MetaModule

_CHANNELS = {"low": 8, "mid": 8, "high": 8}
_GRID = 6


class Figures(NamedTuple):
    loss: float
    iou: float


@functools.cache
def _directions() -> torch.Tensor:
    """(2, 4, 8): orthonormal directions of four kinds of things, and of four kinds of strong nuisances."""
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(7)))[0]
    return torch.stack([basis[:4], basis[4:]])


def episodes(seed: int, number: int, nuisance: float) -> tuple[dict, dict, torch.Tensor, torch.Tensor]:
    """A square of one kind, a quarter of the image, on a ground of another, under patches of nuisances.

    Kinds are new in each episode, and a square lies anywhere (across the border too): without the support nobody can
    do better than an IoU of 1/4. Nuisances lead untrained read-outs astray; training can project them out.
    """
    g = torch.Generator().manual_seed(seed)
    things, nuisances = _directions()
    inside = torch.zeros(number, 2, _GRID, _GRID)
    inside[..., :3, :3] = 1
    for place in inside.flatten(0, 1):
        place.copy_(place.roll(torch.randint(0, _GRID, (2,), generator=g).tolist(), dims=(0, 1)))
    kinds = torch.stack([torch.randperm(4, generator=g)[:2] for _ in range(number)])
    which = kinds[torch.arange(number)[:, None, None, None], inside.long()]
    patches = nuisances[torch.randint(0, 4, (number, 2, 3, 3), generator=g)]
    patches = patches.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    values = (things[which] + nuisance * patches).movedim(4, 2)
    values = values + 0.05 * torch.randn(values.shape, generator=g)
    masks = torch.stack([1 - inside, inside], dim=2)
    query, support = ({name: part for name in _CHANNELS} for part in (values[:, 0], values[:, 1:]))
    return query, support, masks[:, 1:], masks[:, 0]


def learns(
    name: str, steps: int = 60, lr: float = 3e-3, nuisance: float = 0.0, **options: object
) -> tuple[Figures, Figures]:
    """Loss and IoU on episodes that are not trained on, before and after training on others."""
    before, module = trained(name, steps, lr, nuisance, **options)
    return before, measured(module, nuisance)


def trained(name: str, steps: int, lr: float, nuisance: float, **options: object) -> tuple[Figures, MetaModule]:
    """What `learns` measures before, and the module after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MetaModule(
            heads.build(name, options, _CHANNELS, corners=False), losses.cross_entropy_dice, corners=False
        )
        if isinstance(module.head, Studies) and module.head.studies:
            query, _, _, truth = episodes(2000, 64, nuisance)
            module.head.study([(query, truth)], seed=0)
        before = measured(module, nuisance)
        moments = [torch.zeros_like(p) for p in module.parameters()]
        module.train()
        for step in range(steps):
            module.zero_grad()
            module(*episodes(step, 16, nuisance))["loss"].backward()
            _step(module, moments, lr)
            if isinstance(module.head, Settles) and (noted := module.head.noted()) is not None:
                module.head.settle(noted)
        return before, module


@torch.no_grad()
def _step(module: torch.nn.Module, moments: list[torch.Tensor], lr: float) -> None:
    """Down by the signs of averaged gradients (`torch.optim` takes seconds to import)."""
    for parameter, moment in zip(module.parameters(), moments, strict=True):
        moment.mul_(0.9).add_(parameter.grad)
        parameter.sub_(lr * moment.sign())


@torch.no_grad()
def measured(module: MetaModule, nuisance: float) -> Figures:
    """Loss and IoU on episodes of their own."""
    module.eval()
    query, support, masks, truth = episodes(1000, 64, nuisance)
    logits = module._enlarged(module.head(query, support, masks), truth)
    predicted, real = logits[:, 1] > logits[:, 0], truth[:, 1] > 0
    iou = (predicted & real).flatten(1).sum(1) / (predicted | real).flatten(1).sum(1)
    return Figures(float(module.loss(logits, truth)), float(iou.mean()))
