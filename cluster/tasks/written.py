"""Tasks that the pair stage wrote, shard by shard."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.files import File, read_file
from fss import shards, tasks


@dataclass(frozen=True)
class TaskFiles:
    """Shards of tasks, as a function of the shard's number; the last few stay in memory."""

    folder: Path
    files: tuple[File, ...]

    def __call__(self, number: int, epoch: int) -> Sequence[tasks.Task]:
        """The tasks of shard `number`, the same in every epoch."""
        return _read_tasks(self.folder, self.files[number])

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""
        return tuple(file.count for file in self.files)


@functools.lru_cache(maxsize=4)
def _read_tasks(folder: Path, file: File) -> list[tasks.Task]:
    found = [tasks.decode(sample) for sample in shards.unpack(read_file(folder, file))]
    if len(found) != file.count:
        raise ValueError(
            f"{folder / file.path}: expected {file.count} tasks, got {len(found)}; run the pair stage again"
        )
    return found
