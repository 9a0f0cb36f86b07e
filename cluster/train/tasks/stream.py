"""Tasks that are paired while training, by the rules of `pair`, anew in every epoch; nothing is written.

The same interface as the shards of tasks that the pair stage writes: a function from the number of a shard (here: a
group of shards) and the epoch to its tasks, and `counts`. The number of a group's tasks follows from its region table
alone, so `fss.tasks.task.Schedule` can place every episode beforehand: which task episode i is, is a function of
(seed, i), whoever asks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.engine.pool import Failure, Pool
from cluster.engine.stage import StageError
from cluster.pair.groups import Regions, ShardGroup, drawn, held_out, number_drawn, read_regions
from fss import rng
from fss.imaging import images
from fss.tasks import task
from fss.tasks.pairing.parts import pairs
from fss.tasks.pairing.parts.rules import Rules

#: Groups, and drawn epochs of them, that a process keeps: a batch may begin in one and end in the next.
_KEPT = 2


@dataclass(frozen=True)
class Streams:
    """Where the tasks of a corpus come from. Picklable; small but for the list of files."""

    corpus: Path
    labels: Path
    groups: tuple[ShardGroup, ...]
    rules: Rules
    seed: int

    def count(self, number: int) -> tuple[int, int]:
        """Tasks for training and for validation of one group, in any epoch; reads its region table only."""
        table = read_regions(self.labels, self.groups[number].regions, descriptors=False)
        held = held_out(table.key, self.seed)
        return number_drawn(table, self.rules, ~held), number_drawn(table, self.rules, held)

    def open(self, pool: Pool) -> tuple[TaskStream, TaskStream]:
        """The tasks for training and those for validation; the workers of `pool` count them.

        Raises:
            StageError: if a region table cannot be read.
        """
        counts = dict(pool.map(self.count, range(len(self.groups))))
        failed = [result.message for result in counts.values() if isinstance(result, Failure)]
        if failed:
            raise StageError(f"train: {len(failed)} of {len(self.groups)} groups cannot be counted ({failed[0]})")
        train, held = ([counts[number][kind] for number in range(len(self.groups))] for kind in (0, 1))
        return TaskStream(self, False, tuple(train)), TaskStream(self, True, tuple(held))


@dataclass(frozen=True)
class TaskStream:
    """The tasks of each group, those of held-out query images or the others."""

    source: Streams
    held: bool
    counts: tuple[int, ...]
    """Tasks in each group."""

    def __call__(self, number: int, epoch: int) -> Sequence[task.Task]:
        """The tasks of group `number` in `epoch`, each made when it is asked for.

        Held-out ones are the same in every epoch, so that figures of different steps can be compared.
        """
        return self._drawn(number, 0 if self.held else epoch)

    @functools.cached_property
    def _drawn(self) -> Callable[[int, int], task.LazyTasks]:
        return functools.lru_cache(_KEPT)(self._draw)

    @functools.cached_property
    def _opened(self) -> Callable[[int], Regions]:
        return functools.lru_cache(_KEPT)(self._open)

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _open(self, number: int) -> Regions:
        one, group = self.source, self.source.groups[number]
        return Regions(one.corpus, one.labels, group, read_regions(one.labels, group.regions), one.rules)

    def _draw(self, number: int, epoch: int) -> task.LazyTasks:
        source, pairings = self._opened(number), self.pairings(number, epoch)
        return task.LazyTasks(len(pairings), lambda place: _task(source, pairings, place))

    def pairings(self, number: int, epoch: int) -> Sequence[pairs.Pairing]:
        """Which regions the tasks of group `number` in `epoch` pair.

        Raises:
            ValueError: if they are not as many as were counted.
        """
        table, seed = self._opened(number).table, self.source.seed
        held = held_out(table.key, seed)
        pairings = drawn(
            table, self.source.rules, seed=rng.mix(seed, "epoch", epoch), queries=held if self.held else ~held
        )
        if len(pairings) != self.counts[number]:
            raise ValueError(
                f"group {number}: expected {self.counts[number]} tasks, got {len(pairings)} in epoch {epoch}"
            )
        return pairings


def _task(source: Regions, pairings: Sequence[pairs.Pairing], place: int) -> task.Task:
    """The task of the pairing at `place`, read from its images; of the next one that is possible, if it is not.

    Raises:
        ValueError: if no region of the group can be split.
    """
    in_turn = (pairings[(place + step) % len(pairings)] for step in range(len(pairings)))
    pairing = next((one for one in in_turn if source.possible(one)), None)
    if pairing is None:
        raise ValueError(
            f"expected a region that can be split, found none in {len(pairings)} tasks of a group; lower "
            "pair.split.min_area, or raise pair.min_area"
        )
    keys, jpegs, masks = source.task(pairing)
    return task.Task(tuple(keys), tuple(jpegs), tuple(map(images.encode_png, masks)))
