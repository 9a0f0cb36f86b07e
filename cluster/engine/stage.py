"""A stage is a function of (input manifests, settings); its folder carries the fingerprint of both.

    <root>/<name>/<stage>/manifest.json            a copy of the manifest of the folder finished last
    <root>/<name>/<stage>/<fingerprint>/           one folder for each configuration, never mixed
        manifest.json                              written last: a stage without it is not finished
        .promised.json                             the manifest of a finished stage of which files are being made again
        .units/<unit>.json                         written after a unit's files: what a restart need not do again
        timing.json                                seconds, which no fingerprint depends on

Most stages map a pure `function(unit) -> Output` over units of about one shard each (`map_units`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.engine import publish
from cluster.engine.files import DamagedFileError, File, damaged_in, read_file, write_file
from cluster.engine.manifest import Manifest, point_to, read_manifest
from cluster.engine.pool import Failure
from cluster.engine.progress import Progress
from cluster.tracking.redact import redacted
from fss import shards

if TYPE_CHECKING:
    from cluster.engine.run import Run

__all__ = [
    "DamagedFileError",
    "File",
    "Manifest",
    "Output",
    "Publisher",
    "Stage",
    "StageError",
    "Unit",
    "execute",
    "fingerprint",
    "finished",
    "map_units",
    "point_to",
    "read_file",
    "read_manifest",
    "write_file",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unit:
    """A piece of work with a name that is a file-name stem, and what the function needs to know."""

    name: str
    payload: Any


@dataclass(frozen=True)
class Output:
    """What a unit makes: file names with their bytes, published in this order; their samples; sums for the manifest."""

    files: Mapping[str, bytes]
    samples: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A named stage: which stages it reads, what shapes its output, and the work itself.

    `settings` returns plain JSON values; `work` writes into the folder it is given and returns files and counts.
    """

    name: str
    inputs: Callable[[Run], tuple[str, ...]]
    settings: Callable[[Run], dict[str, Any]]
    work: Callable[[Run, Path], tuple[Sequence[File], Mapping[str, int]]]
    version: int = 1
    """Raised when the code's output changes for equal settings."""


class StageError(ValueError):
    """A stage that could not finish; what was finished is kept and the next run goes on from it.

    `damaged` are the input files that its units found damaged.
    """

    def __init__(self, message: str, damaged: Sequence[DamagedFileError] = ()):
        super().__init__(message)
        self.damaged = tuple(damaged)


def fingerprint(stage: Stage, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """12 hex digits over everything that shapes a stage's output."""
    return shards.sha256(shards.dumps([stage.name, stage.version, settings, inputs]))[:12]


def finished(stage: Stage, folder: Path) -> Manifest | None:
    """The manifest of `folder` if it is finished and its files are still there in full size."""
    manifest = read_manifest(folder / "manifest.json")
    return None if manifest is None or _lost(manifest) else manifest


def _lost(manifest: Manifest) -> list[str]:
    return [file.path for file in manifest.files if not _whole(manifest.folder / file.path, file.bytes)]


def execute(stage: Stage, run: Run, folder: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Manifest:
    """Do the stage's work in `folder`, whose lock the caller holds, and publish its manifest.

    Raises:
        StageError: if files of a finished stage were made again and came out different.
    """
    _promise(stage, folder)
    publish.sweep(folder)
    start = time.monotonic()
    files, counts = stage.work(run, folder)
    _keep_promise(stage, folder, files)
    value = {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": folder.name,
        "settings": redacted(dict(settings)),
        "inputs": dict(inputs),
        "counts": dict(counts),
        "files": [vars(file) for file in files],
    }
    publish.write_sealed(folder / "timing.json", {"seconds": round(time.monotonic() - start, 3)})
    publish.write_sealed(folder / "manifest.json", value)
    (folder / ".promised.json").unlink(missing_ok=True)
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None, folder
    return manifest


def _promise(stage: Stage, folder: Path) -> None:
    """Keep the manifest of a finished stage that lost files for what is made again to be compared with."""
    path = folder / "manifest.json"
    manifest = read_manifest(path)
    if manifest is not None and (lost := _lost(manifest)):
        logger.warning("%s: %d files are missing or cut short (%s); making them again", stage.name, len(lost), lost[0])
        path.replace(folder / ".promised.json")


def _keep_promise(stage: Stage, folder: Path, files: Sequence[File]) -> None:
    """Check files that were made again against the manifest from before: other stages were made of those bytes."""
    promised = read_manifest(folder / ".promised.json")
    if promised is None:
        return
    before = {file.path: file for file in promised.files}
    changed = [file for file in files if before.get(file.path) != file]
    if changed or len(files) != len(before):
        first = changed[0] if changed else promised.files[-1]
        expected = before[first.path].sha256[:12] if first.path in before else "no such file"
        raise StageError(
            f"{stage.name}: {folder / first.path} was made again and came out different: the manifest promised "
            f"{expected}, got {first.sha256[:12]}; other software or hardware than before? Delete {folder} and the "
            "stages made of it, or choose another name="
        )


def map_units(
    run: Run,
    folder: Path,
    stage: str,
    function: Callable[[Unit], Output],
    units: Iterable[Unit],
    *,
    total: int,
    items: str = "images",
    parts: str = "shards",
) -> tuple[list[File], dict[str, int]]:
    """Apply `function` to the units that are not done yet; return all units' files, in unit order, and summed counts.

    `items` names the count that progress is told in, `parts` what a unit is.

    Raises:
        StageError: after everything else was done, naming the units that failed.
    """
    failures: list[str] = []
    damaged: list[DamagedFileError] = []
    names: list[str] = []
    submitted: list[str] = []
    with Progress(stage, total, items, parts=parts) as progress:

        def missing() -> Iterator[Unit]:
            for unit in units:
                names.append(unit.name)
                if _record(folder, unit.name) is None:
                    submitted.append(unit.name)
                    yield unit
                else:
                    progress.skip()

        for index, result in run.pool.map(Publisher(function, folder), missing()):
            failed = isinstance(result, Failure)
            if failed:
                failures.append(f"{submitted[index]}: {result.message}")
                damaged += damaged_in(result.error)
            progress.update(items=0 if failed else result.get(items, 0), failed=int(failed))
    if failures:
        raise StageError(
            f"{stage}: {len(failures)} of {len(names)} {parts} failed ({'; '.join(failures[:3])}); "
            "the others are kept, run again to retry",
            damaged,
        )
    return _collect(folder, names)


@dataclass(frozen=True)
class Publisher:
    """Runs in a worker: computes a unit, publishes its files, then the record that says so."""

    function: Callable[[Unit], Output]
    folder: Path

    def __call__(self, unit: Unit) -> dict[str, int]:
        """Make and publish `unit`, return its counts; safe to run twice."""
        output = self.function(unit)
        files = []
        for name, data in output.files.items():
            written = publish.write_bytes(self.folder / name, data)
            files.append({"path": name, "count": int(output.samples.get(name, 0)), **written})
        record: dict[str, Any] = {"files": files, "counts": {key: int(n) for key, n in output.counts.items()}}
        publish.write_sealed(self.folder / ".units" / f"{unit.name}.json", record)
        return record["counts"]


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    record = publish.read_sealed(folder / ".units" / f"{name}.json")
    if record is None:
        return None
    whole = all(_whole(folder / file["path"], file["bytes"]) for file in record["files"])
    return record if whole else None


def _whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _collect(folder: Path, names: Sequence[str]) -> tuple[list[File], dict[str, int]]:
    files: list[File] = []
    counts: Counter[str] = Counter()
    for name in names:
        record = _record(folder, name)
        assert record is not None, name
        files += [File(**file) for file in record["files"]]
        counts.update(record["counts"])
    return files, dict(counts)
