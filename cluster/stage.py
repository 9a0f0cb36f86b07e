"""A stage is a function of (input manifests, settings); its folder carries the fingerprint of both.

    <root>/<name>/<stage>/manifest.json            a copy of the manifest of the folder finished last
    <root>/<name>/<stage>/<fingerprint>/           one folder for each configuration, never mixed
        manifest.json                              written last: a stage without it is not finished
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

from cluster import publish
from cluster.pool import Failure
from cluster.progress import Progress
from fss import shards

if TYPE_CHECKING:
    from cluster.run import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """One published file of a stage: name relative to the stage's folder, samples, bytes and sha256."""

    path: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a finished stage holds. `counts` are sums over its units and add up."""

    stage: str
    fingerprint: str
    folder: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    counts: Mapping[str, int]
    files: tuple[File, ...]

    def named(self, suffix: str) -> list[File]:
        """The files whose names end in `suffix`, in order.

        Raises:
            ValueError: if there are none.
        """
        found = [file for file in self.files if file.path.endswith(suffix)]
        if not found:
            raise ValueError(f"expected files *{suffix} in the {self.stage} stage, {self.folder} has none")
        return found

    def path(self, suffix: str) -> Path:
        """The path of the only file whose name ends in `suffix`."""
        (file,) = self.named(suffix)
        return self.folder / file.path


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
    """A stage that could not finish; what was finished is kept and the next run goes on from it."""


def fingerprint(stage: Stage, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """12 hex digits over everything that shapes a stage's output."""
    return shards.sha256(shards.dumps([stage.name, stage.version, settings, inputs]))[:12]


def finished(stage: Stage, folder: Path) -> Manifest | None:
    """The manifest of `folder` if it is finished and its files are still there in full size."""
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_manifest(path)
    lost = [f.path for f in manifest.files if not _whole(folder / f.path, f.bytes)]
    if lost:
        logger.warning("%s: %d files are missing or cut short (%s); making them again", stage.name, len(lost), lost[0])
        path.unlink()
        return None
    return manifest


def read_manifest(path: Path) -> Manifest:
    """A finished stage's manifest.json."""
    value = publish.read_json(path)
    return Manifest(
        stage=value["stage"],
        fingerprint=value["fingerprint"],
        folder=path.parent,
        settings=value["settings"],
        inputs=value["inputs"],
        counts=value["counts"],
        files=tuple(File(**file) for file in value["files"]),
    )


def execute(stage: Stage, run: Run, folder: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Manifest:
    """Do the stage's work in `folder` and publish its manifest; one writer at a time."""
    with publish.only_writer(folder):
        start = time.monotonic()
        files, counts = stage.work(run, folder)
        value = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": folder.name,
            "settings": dict(settings),
            "inputs": dict(inputs),
            "counts": dict(counts),
            "files": [vars(file) for file in files],
        }
        publish.write_json(folder / "timing.json", {"seconds": round(time.monotonic() - start, 3)})
        publish.write_json(folder / "manifest.json", value)
    return read_manifest(folder / "manifest.json")


def point_to(manifest: Manifest) -> None:
    """Make <stage>/manifest.json the copy of `manifest`, its paths relative to the stage's folder."""
    value = publish.read_json(manifest.folder / "manifest.json")
    for file in value["files"]:
        file["path"] = f"{manifest.folder.name}/{file['path']}"
    target = manifest.folder.parent / "manifest.json"
    if not target.is_file() or publish.read_json(target) != value:
        publish.write_json(target, value)


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
            progress.update(items=0 if failed else result.get(items, 0), failed=int(failed))
    if failures:
        raise StageError(
            f"{stage}: {len(failures)} of {len(names)} {parts} failed ({'; '.join(failures[:3])}); "
            "the others are kept, run again to retry"
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
        publish.write_json(self.folder / ".units" / f"{unit.name}.json", record)
        return record["counts"]


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / ".units" / f"{name}.json"
    if not path.is_file():
        return None
    record = publish.read_json(path)
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


def write_file(folder: Path, name: str, data: bytes, count: int = 0) -> File:
    """Publish one file of a stage that makes its files itself."""
    return File(name, count, **publish.write_bytes(folder / name, data))


def read_file(folder: Path, file: File) -> bytes:
    """The bytes of a stage's file, checked against its manifest.

    Raises:
        ValueError: if they are not what the stage wrote.
    """
    data = (folder / file.path).read_bytes()
    if len(data) != file.bytes or shards.sha256(data) != file.sha256:
        raise ValueError(
            f"{folder / file.path} is damaged: expected {file.bytes} bytes with sha256 {file.sha256[:12]}, got "
            f"{len(data)} bytes with {shards.sha256(data)[:12]}; delete it and run its stage again"
        )
    return data
