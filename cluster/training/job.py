"""What is trained, and how the loop is to run it: values that the driver makes and every worker gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from cluster.engine.settings import picked
from cluster.engine.work import Work
from cluster.training.meter import Figures


class Recipe(Protocol):
    """What the loop needs of the thing that is trained. Picklable; one instance in each worker."""

    def module(self, device: torch.device) -> nn.Module:
        """The trainable module; `module(*batch)` returns scalars, among them `loss`."""

    def identity(self) -> Mapping[str, str]:
        """What a checkpoint does not hold and must fit, such as the hash of frozen weights."""

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Its optimiser, with the full learning rate in each group."""

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[tuple[Any, ...]]:
        """This rank's share of batches start..stop-1, ready for the module."""

    def after_step(self, module: nn.Module) -> None:
        """Called after each optimiser step (momentum networks, queues)."""

    def validate(self, module: nn.Module) -> Figures:
        """Label-free validation with the averaged weights, the same on all ranks; may be empty."""

    def examples(self, module: nn.Module) -> bytes | None:
        """PNG of example predictions with the averaged weights, of the same samples each time, if there are any.

        Called on all ranks, of which rank 0's picture is kept.
        """

    def candidate(self, module: nn.Module, folder: Path, step: int, figures: Figures) -> None:
        """Keep the averaged weights of `step` and what `validate` found, on rank 0; a step done twice comes twice."""

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the trained result into `folder`, on rank 0, with the averaged weights in place; the last call."""


@dataclass(frozen=True)
class Job:
    """One training run: the recipe and how the loop is to run it.

    `identity` marks whose checkpoints these are; `journal`, child of `parent` in folder `tracking`, takes the metrics.
    Each worker computes its share of a batch in `accumulate` parts; `schedule` is one of `optimizers.learning_rate`.
    What the module draws at random (dropout) is a function of `seed`, step, rank and part.
    """

    name: str
    recipe: Recipe
    folder: Path
    tracking: Path
    journal: str
    parent: str
    identity: Mapping[str, Any]
    steps: int
    batch: int
    seed: int = 0
    warmup: int = 0
    schedule: str = "cosine"
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    precision: str = "fp32"
    zero_stage: int = 0
    log_every: int = 20
    validate_every: int = 0
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    moments: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    threads: int = 1
    opened: tuple[Path, ...] = ()
    """Folders whose files the recipe opens by their paths, see `Stage.by_path`."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, work: Work[Any, Any], recipe: Recipe, **others: Any) -> Job:
        """The training that a stage's work is: what its settings and means have under our names, and `others`."""
        return picked(
            cls,
            work.settings,
            work.means,
            name=name,
            recipe=recipe,
            folder=work.folder,
            tracking=work.log.folder,
            journal=work.log.run,
            parent=work.log.parent,
            identity={"run": work.folder.name},
            opened=work.opened,
            threads=work.means.cluster.cpus_per_train_worker,
            **others,
        )

    def due(self, step: int, every: int) -> bool:
        """Whether what happens every so many steps (0: never), and after the last one, happens after `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)

    def validations(self) -> list[int]:
        """The steps after which the averaged weights are validated and kept as a candidate."""
        return [step for step in range(1, self.steps + 1) if self.due(step, self.validate_every)]
