"""What a stage's work is given: its settings, which were hashed, its means, which shape no byte, inputs and workers.

Most stages map a pure `function(unit) -> Output` over units of about one shard each (`Work.map`).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from cluster.engine import publish
from cluster.engine.files import DamagedFileError, File, damaged_in
from cluster.engine.manifest import Manifest
from cluster.engine.pool import Failure, Pool
from cluster.engine.progress import Progress
from cluster.storage import paths
from cluster.tracking.journal import Journal

#: Records of a bucket that are asked for together.
_AT_ONCE = 256

SettingsT = TypeVar("SettingsT")
MeansT = TypeVar("MeansT")


@dataclass(frozen=True)
class Unit:
    """A piece of work with a name that is a file-name stem, and what the function needs to know."""

    name: str
    payload: Any


@dataclass(frozen=True)
class Output:
    """What a unit makes: file names with their bytes; their samples; sums for the manifest."""

    files: Mapping[str, bytes]
    samples: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class StageError(ValueError):
    """A stage that could not finish; what was finished is kept and the next run goes on from it.

    `damaged` are the input files that its units found damaged.
    """

    def __init__(self, message: str, damaged: Sequence[DamagedFileError] = ()):
        super().__init__(message)
        self.damaged = tuple(damaged)


@dataclass(frozen=True)
class Log:
    """Where a stage's journal is, for whichever process writes it."""

    folder: Path
    run: str
    parent: str

    def open(self) -> Journal:
        """The journal; one process at a time may have it open."""
        return Journal(self.folder, self.run, parent=self.parent)


class Crew(Protocol):
    """The processes that work for a run."""

    @property
    def pool(self) -> Pool:
        """The workers of the shard stages; they start when they are first asked for."""

    def session(self) -> None:
        """Connect to Ray and end the pool, so that training gets its CPUs and GPUs."""


@dataclass(frozen=True)
class Work(Generic[SettingsT, MeansT]):
    """All that a stage's work has. There is no way from here to a key that is neither hashed nor named as means."""

    settings: SettingsT
    """What shapes the output: the object that was hashed."""
    means: MeansT
    """What does not: places of files whose content is hashed, processes, memory, how often something is logged."""
    inputs: Mapping[str, Manifest]
    """The finished stages that the stage declared, by name."""
    folder: Path
    """Where its files go."""
    log: Log
    crew: Crew
    opened: tuple[Path, ...] = ()
    """The folders of inputs whose files are opened by their paths, see `Stage.by_path`."""

    @property
    def pool(self) -> Pool:
        """The workers, for stages that hand out other things than units; they are of the stage's compute class."""
        pool = self.crew.pool
        pool.serve(self.folder)
        return pool

    def session(self) -> None:
        """See `Crew.session`."""
        self.crew.session()

    def journal(self) -> Journal:
        """The stage's journal."""
        return self.log.open()

    def map(
        self,
        step: str,
        function: Callable[[Unit], Output],
        units: Iterable[Unit],
        *,
        total: int | None = None,
        items: str = "images",
        parts: str = "shards",
    ) -> tuple[list[File], dict[str, int]]:
        """Apply `function` to the units that are not done yet; all units' files, in unit order, and summed counts.

        `items` names the count that progress is told in, `parts` what a unit is; `total` is their number where `units`
        has no length.

        Raises:
            StageError: after everything else was done, naming the units that failed.
        """
        number = len(units) if total is None else total  # type: ignore[arg-type]
        failures: list[str] = []
        damaged: list[DamagedFileError] = []
        names: list[str] = []
        submitted: list[str] = []
        with Progress(step, number, items, parts=parts) as progress:

            def missing() -> Iterator[Unit]:
                for unit, record in _recorded(self.folder, units):
                    names.append(unit.name)
                    if record is None:
                        submitted.append(unit.name)
                        yield unit
                    else:
                        progress.skip()

            for index, result in self.pool.map(Publisher(function, self.folder, self.opened), missing()):
                failed = isinstance(result, Failure)
                if failed:
                    failures.append(f"{submitted[index]}: {result.message}")
                    damaged += damaged_in(result.error)
                progress.update(items=0 if failed else result.get(items, 0), failed=int(failed))
        if failures:
            raise StageError(
                f"{step}: {len(failures)} of {len(names)} {parts} failed ({'; '.join(failures[:3])}); "
                "the others are kept, run again to retry",
                damaged,
            )
        return _collect(self.folder, names)


@dataclass(frozen=True)
class Publisher:
    """Runs in a worker: computes a unit, publishes its files, then the record that says so."""

    function: Callable[[Unit], Output]
    folder: Path
    opened: tuple[Path, ...] = ()

    def __call__(self, unit: Unit) -> dict[str, int]:
        """Make and publish `unit`, return its counts; safe to run twice."""
        bring_once(self.opened)
        output = self.function(unit)
        written = publish.write_each({self.folder / name: data for name, data in output.files.items()})
        files = [
            {"path": name, "count": int(output.samples.get(name, 0)), **about}
            for name, about in zip(output.files, written, strict=True)
        ]
        record: dict[str, Any] = {"files": files, "counts": {key: int(n) for key, n in output.counts.items()}}
        publish.write_sealed(self.folder / ".units" / f"{unit.name}.json", record)
        return record["counts"]


@functools.lru_cache
def bring_once(folders: tuple[Path, ...]) -> None:
    """Have what a bucket has in these folders on this machine."""
    for folder in folders:
        paths.bring(folder)


def _recorded(folder: Path, units: Iterable[Unit]) -> Iterator[tuple[Unit, dict[str, Any] | None]]:
    """The units, each with its record if its files are there in full size; of a bucket's many are asked for at once."""
    sizes, feed = paths.sizes(folder), iter(units)
    while some := list(itertools.islice(feed, _AT_ONCE if paths.stored(folder) else 1)):
        names = [f".units/{unit.name}.json" for unit in some]
        there = [name for name in names if sizes(name) is not None]
        found = dict(zip(there, publish.read_each_sealed(folder / name for name in there), strict=True))
        for unit, name in zip(some, names, strict=True):
            record = found.get(name)
            files = () if record is None else record["files"]
            yield unit, record if all(sizes(file["path"]) == file["bytes"] for file in files) else None


def _collect(folder: Path, names: Sequence[str]) -> tuple[list[File], dict[str, int]]:
    files: list[File] = []
    counts: Counter[str] = Counter()
    for unit, record in _recorded(folder, (Unit(name, None) for name in names)):
        assert record is not None, unit.name
        files += [File(**file) for file in record["files"]]
        counts.update(record["counts"])
    return files, dict(counts)
