"""A stage is a function of (input manifests, settings); its folder carries the fingerprint of both.

<root>/<name>/<stage>/manifest.json            a copy of the manifest of the folder finished last
<root>/<name>/<stage>/<fingerprint>/           one folder for each configuration, never mixed
    manifest.json                              written last: a stage without it is not finished
    .made_by.json                              the code, and the driver's libraries and processor, that began it
    .made_on/class-<digest>.json               the compute classes of the machines that worked for it
    .promised.json                             the manifest of a finished stage of which files are being made again
    .units/<unit>.json                         written after a unit's files: what a restart need not do again
    timing.json                                seconds, which no fingerprint depends on
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from cluster.config import Config
from cluster.engine import compute, origin, publish
from cluster.engine.files import DamagedFileError, File, read_array, read_file, write_file
from cluster.engine.manifest import PROMISED, Manifest, point_to, read_manifest
from cluster.engine.progress import ended, tell
from cluster.engine.work import MeansT, Output, Publisher, SettingsT, StageError, Unit, Work
from cluster.storage import paths
from cluster.tracking.redact import redacted
from fss import shards
from fss.threads import one_for_sums

__all__ = [
    "DamagedFileError",
    "File",
    "Manifest",
    "Output",
    "Publisher",
    "Stage",
    "StageError",
    "Unit",
    "Work",
    "execute",
    "fingerprint",
    "finished",
    "point_to",
    "read_array",
    "read_file",
    "read_manifest",
    "write_file",
]

logger = logging.getLogger(__name__)

#: Who began a stage, in its folder; and the name in `made_by` of a manifest for code that began what another ended.
MADE_BY, OTHER = ".made_by.json", "begun by code"


def no_means(config: Config) -> None:
    """Of a stage all of whose keys shape its output."""


def nothing_damaged(manifest: Manifest) -> Sequence[str]:
    """Of a stage whose readers check what they read."""
    return ()


def no_problems(config: Config) -> Sequence[str]:
    """Of a stage that needs nothing but its inputs."""
    return ()


def no_size(settings: Callable[[str], Any]) -> Mapping[str, int]:
    """Of a stage whose work alone tells how much there is to do."""
    return {}


@dataclass(frozen=True)
class Stage(Generic[SettingsT, MeansT]):
    """A named stage: which stages it reads, what shapes its output, what does not, and the work itself."""

    name: str
    inputs: Callable[[Config], tuple[str, ...]]
    """The stages that it reads; whatever the configuration is, this raises nothing."""
    settings: Callable[[Config], SettingsT]
    """A frozen dataclass of plain JSON values, which is hashed; of the user's files it holds their hashes."""
    work: Callable[[Work[SettingsT, MeansT]], tuple[Sequence[File], Mapping[str, int]]]
    """Writes into the folder that it is given and returns files and counts."""
    means: Callable[[Config], MeansT] = no_means  # type: ignore[assignment]
    """What the work needs beside its settings and may not shape its output."""
    check: Callable[[Config], Sequence[str]] = no_problems
    """What is wrong with what the stage will need, a sentence each, found without doing any work: files, weights, data
    sets. It raises nothing."""
    size: Callable[[Callable[[str], Any]], Mapping[str, int]] = no_size
    """How much there is to do, by what it is counted in: what the settings of stages, asked for by name, tell of it."""
    damaged: Callable[[Manifest], Sequence[str]] = nothing_damaged
    """Files of the finished stage that are whole and have to be made again, for what they stand for is damaged."""
    by_path: bool = False
    """Whether files of it are opened by their paths: then all are copied to each machine whose run is in a bucket."""
    starts_training: bool = False
    """Whether its work starts the training workers, for all of which there must be room together."""
    unit: str = "images"
    """Which of its counts says how much was done."""
    version: int = 1
    """Raised when the code's output changes for equal settings."""


def fingerprint(stage: Stage[Any, Any], settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """12 hex digits over everything that shapes a stage's output."""
    return shards.sha256(shards.dumps([stage.name, stage.version, settings, inputs]))[:12]


def finished(stage: Stage[Any, Any], folder: Path) -> Manifest | None:
    """The manifest of `folder` if it is finished and its files are still there in full size."""
    manifest = read_manifest(folder / "manifest.json")
    return None if manifest is None or _lost(stage, manifest) else manifest


def _lost(stage: Stage[Any, Any], manifest: Manifest) -> list[str]:
    sizes = paths.sizes(manifest.folder)
    short = [file.path for file in manifest.files if sizes(file.path) != file.bytes]
    if stage.by_path:
        paths.bring(manifest.folder)
    return [*short, *(name for name in stage.damaged(manifest) if name not in short)]


def execute(
    stage: Stage[Any, Any], work: Work[Any, Any], settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> Manifest:
    """Do the stage's work in its folder, whose lock the caller holds, and publish its manifest.

    `settings` are the work's as JSON has them, `inputs` the fingerprints of its inputs.

    Raises:
        StageError: if files of a finished stage were made again and came out different.
    """
    folder = work.folder
    _promise(stage, folder)
    publish.sweep(folder)
    one_for_sums()
    made_by = _begun(stage, folder)
    start = time.monotonic()
    files, counts = stage.work(work)
    publish.sweep(folder)  # of workers that died meanwhile
    _keep_promise(stage, folder, files, made_by)
    if not (made_on := compute.noted(folder)):  # by the driver alone
        made_on = (compute.here(),)
    value = {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": folder.name,
        "settings": redacted(dict(settings)),
        "inputs": dict(inputs),
        "made_by": made_by,
        "made_on": [dict(one) for one in made_on],
        "made_of": {name: manifest.content for name, manifest in work.inputs.items()},
        "counts": dict(counts),
        "files": [vars(file) for file in files],
    }
    seconds = round(time.monotonic() - start, 3)
    publish.write_sealed(folder / "timing.json", {"seconds": seconds})
    publish.write_sealed(folder / "manifest.json", value)
    paths.remove(folder / PROMISED)
    if stage.by_path:  # workers on other machines may have made them
        paths.bring(folder)
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None, folder
    tell(ended(stage.name, counts, stage.unit, seconds))
    return manifest


def _begun(stage: Stage[Any, Any], folder: Path) -> dict[str, str]:
    """What makes the stage now, and which other code has begun it."""
    now, path = origin.origin(stage.work.__module__), folder / MADE_BY
    before = publish.read_sealed(path)
    if before is None:
        publish.write_sealed(path, now)
    other = before is not None and before["code"] != now["code"]
    return now | ({OTHER: before["code"]} if before is not None and other else {})


def _promise(stage: Stage[Any, Any], folder: Path) -> None:
    """Keep the manifest of a finished stage that lost files for what is made again to be compared with."""
    path = folder / "manifest.json"
    manifest = read_manifest(path)
    if manifest is not None and (lost := _lost(stage, manifest)):
        logger.warning("%s: %d files are missing or damaged (%s); making them again", stage.name, len(lost), lost[0])
        for name in lost:
            paths.remove(folder / name)
        publish.write_bytes(folder / PROMISED, paths.read_bytes(path))
        paths.remove(path)


def _keep_promise(stage: Stage[Any, Any], folder: Path, files: Sequence[File], made_by: Mapping[str, str]) -> None:
    """Check files that were made again against the manifest from before: other stages were made of those bytes."""
    promised = read_manifest(folder / PROMISED)
    if promised is None:
        return
    before = {file.path: file for file in promised.files}
    changed = [file for file in files if before.get(file.path) != file]
    if changed or len(files) != len(before):
        reason = _reason(promised, folder, made_by)
        _take_back(promised, folder, changed)
        first = changed[0] if changed else promised.files[-1]
        expected = before[first.path].sha256[:12] if first.path in before else "no such file"
        raise StageError(
            f"{stage.name}: {folder / first.path} was made again and came out different: the manifest promised "
            f"{expected}, got {first.sha256[:12]}; {reason}. Make it again there, or set "
            f"another name=, or delete {folder} and the stages made of it"
        )


def _take_back(promised: Manifest, folder: Path, changed: Sequence[File]) -> None:
    """Remove what came out different, so that a machine of the kind that made it first may make it again."""
    for file in changed:
        paths.remove(folder / file.path)
    for one in compute.noted(folder):
        if one not in promised.made_on:
            compute.forget(folder, one)


def _reason(promised: Manifest, folder: Path, made_by: Mapping[str, str]) -> str:
    """Why bytes came out different: the machines' compute class comes before their disks."""
    others = [one for one in compute.noted(folder) if one not in promised.made_on]
    if others and promised.made_on:
        changed = compute.difference(promised.made_on[0], others[0])
        return f"it was made on a machine of one compute class and again on another: {changed}"
    if len(promised.made_on) > 1:
        return f"machines of several compute classes made it: {' and '.join(compute.words(promised.made_on))}"
    if changed := origin.difference(promised.made_by, made_by):
        return f"it was made by another {changed}"
    return "code, libraries and kind of processor are those of before: look at the disk, the memory and the inputs"
