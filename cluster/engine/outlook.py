"""What a run would do, stage by stage; nothing is started, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cluster.engine.manifest import Manifest, read_manifest
from cluster.engine.run import Run


def outlook(run: Run, names: Iterable[str]) -> list[str]:
    """A line for each of the stages: `skip (done)` or `run`, its folder, and what is known of its units.

    A stage whose settings cannot be told, because a file that shapes them is missing, says why instead.
    """
    return [f"{name:10} {_expected(run, name)}" for name in names]


def _expected(run: Run, name: str) -> str:
    try:
        inputs, fingerprint = run.identity(name)[1:]
    except (ValueError, OSError) as error:
        return f"cannot be told: {error}"
    folder = run.folder / name / fingerprint
    manifest = read_manifest(folder / "manifest.json")
    lost = _lost(manifest) if manifest else 0
    if manifest and not lost:
        return f"skip (done)  {folder}: {_counts(manifest)}"
    known = [f"{lost} files are missing or cut short"] if lost else []
    done = len(list((folder / ".units").glob("*.json"))) if not manifest else 0
    known += [f"goes on after {done} units that are done"] if done else []
    for above, mark in inputs.items():
        found = read_manifest(run.folder / above / mark / "manifest.json")
        known += [f"reads {len(found.files)} files of {above}"] if found else []
    return f"run          {folder}{': ' if known else ''}{'; '.join(known)}"


def _lost(manifest: Manifest) -> int:
    paths: Iterable[tuple[Path, int]] = ((manifest.folder / file.path, file.bytes) for file in manifest.files)
    return sum(not path.is_file() or path.stat().st_size != size for path, size in paths)


def _counts(manifest: Manifest) -> str:
    counts = ", ".join(f"{key} {value}" for key, value in manifest.counts.items())
    return f"{len(manifest.files)} files{f'; {counts}' if counts else ''}"
