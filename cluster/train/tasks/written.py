"""Tasks that the pair stage wrote, shard by shard."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.engine.files import File, read_file
from cluster.engine.manifest import Manifest
from fss import shards
from fss.tasks import task

#: Shards that are kept of a stage's tasks: a batch may begin in one and end in the next.
_KEPT = 4


@dataclass(frozen=True)
class TaskFiles:
    """Shards of tasks, as a function of the shard's number; the last few stay in memory."""

    folder: Path
    files: tuple[File, ...]

    def __call__(self, number: int, epoch: int) -> Sequence[task.Task]:
        """The tasks of shard `number`, the same in every epoch."""
        return self._read(number)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""
        return tuple(file.count for file in self.files)

    @functools.cached_property
    def _read(self) -> Callable[[int], list[task.Task]]:
        return functools.lru_cache(_KEPT)(lambda number: _read_tasks(self.folder, self.files[number]))

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def written(pair: Manifest) -> tuple[TaskFiles, TaskFiles]:
    """The tasks of a pair stage: those for training and those for validation."""
    files = [file for file in pair.named(".tar") if file.count]
    train, held = (tuple(f for f in files if f.path.startswith(kind)) for kind in ("tasks", "holdout"))
    return TaskFiles(pair.folder, train), TaskFiles(pair.folder, held)


def _read_tasks(folder: Path, file: File) -> list[task.Task]:
    tasks = [task.decode(sample) for sample in shards.unpack(read_file(folder, file))]
    if len(tasks) != file.count:
        raise ValueError(
            f"{folder / file.path}: expected {file.count} tasks, got {len(tasks)}; run the pair stage again"
        )
    return tasks
