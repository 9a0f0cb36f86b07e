"""Where episodes come from: written shards, label maps paired while training, labelled images, mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fss.tasks import task


class Tasks(Protocol):
    """Tasks in numbered shards, as `fss.tasks.task.Batches` reads them. Picklable."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""

    def __call__(self, number: int, epoch: int) -> Sequence[task.Task]:
        """The tasks of shard `number` in an epoch, always the same ones."""
