"""Units of the real stages, timed in the workers that do them, for `cluster.planning.calibrate`."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import psutil

from cluster.engine import publish
from cluster.engine.pool import Failure, Pool
from cluster.engine.run import Run


@dataclass(frozen=True)
class Note:
    """What one unit cost its worker: seconds, and bytes of memory before it began."""

    step: str
    unit: str
    process: tuple[str, int]
    seconds: float
    memory: int


@dataclass(frozen=True)
class Timed:
    """Runs in a worker: a function with a note of what it cost."""

    function: Callable[[Any], Any]

    def __call__(self, unit: Any) -> tuple[Any, Note]:
        """What the function returns, and the note."""
        memory, start = psutil.Process().memory_info().rss, time.perf_counter()
        result = self.function(unit)
        seconds = time.perf_counter() - start
        process = (os.uname().nodename, os.getpid())
        return result, Note(step_of(self.function), getattr(unit, "name", ""), process, seconds, memory)


def step_of(function: Callable[[Any], Any]) -> str:
    """The first word of the name of what computes a unit: `hash` of a HashChunk, alone or in a Publisher."""
    name = type(getattr(function, "function", function)).__name__
    return re.findall("[A-Z]?[a-z0-9]*", name)[0].lower()


class TimedPool:
    """A pool that keeps a note of every unit that it maps."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.notes: list[Note] = []

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """As `Pool.map`."""
        for index, result in self.pool.map(Timed(function), units):
            if isinstance(result, Failure):
                yield index, result
            else:
                self.notes.append(result[1])
                yield index, result[0]

    def one(self, function: Callable[[Any], Any], unit: Any) -> tuple[Any, Note]:
        """The result of one unit and its note, which is not kept; nobody takes it over, however long it takes.

        Raises:
            ValueError: if the function raised.
        """
        (result,) = self.pool.on_each(Timed(function), [unit])
        return cast("tuple[Any, Note]", result)

    def rest(self) -> None:
        """Nothing: units are timed in workers that have loaded everything."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)


@dataclass(frozen=True)
class Made:
    """What a unit made, its record included: items of its step, bytes, and files."""

    items: float
    bytes: float
    files: int


@dataclass(frozen=True)
class Trial:
    """A run of the stages with the notes of its units and, of each stage, the seconds in which no worker had one."""

    run: Run
    notes: Mapping[str, list[Note]]
    fixed: Mapping[str, float]

    @classmethod
    def go(cls, run: Run, pool: TimedPool, stages: Sequence[str]) -> Trial:
        """Run the stages, and whatever they read."""
        run.__dict__["pool"] = pool
        notes, fixed = {}, {}
        for name in stages:
            for above in run.order(name)[:-1]:
                run.ensure(above)
            pool.notes = []
            manifest = run.ensure(name)
            notes[name] = pool.notes
            busy: dict[Any, float] = defaultdict(float)
            for note in notes[name]:
                busy[note.process] += note.seconds
            fixed[name] = max(0.0, run.seconds(manifest) - max(busy.values()))
        return cls(run, notes, fixed)

    def steps(self, stage: str) -> list[str]:
        """The steps of a stage, in order."""
        return list(dict.fromkeys(note.step for note in self.notes[stage]))

    def step(self, stage: str, name: str) -> tuple[list[Note], list[Made]]:
        """Notes of a step, and what each unit made."""
        notes = [note for note in self.notes[stage] if note.step == name]
        return notes, [self._made(stage, note.unit) for note in notes]

    def _made(self, stage: str, unit: str) -> Made:
        path = self.run.manifest(stage).folder / ".units" / f"{unit}.json"
        value = publish.read_sealed(path)
        assert value is not None, path
        counts, files = value["counts"], value["files"]
        items = next((counts[key] for key in ("inputs", "images", "crops") if key in counts), 0)
        return Made(items, sum(file["bytes"] for file in files) + path.stat().st_size, len(files) + 1)
