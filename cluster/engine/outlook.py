"""What a run would do, stage by stage; nothing is started, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.engine import publish
from cluster.engine.manifest import Manifest, read_manifest
from cluster.engine.progress import format_duration
from cluster.engine.run import Run
from cluster.storage import bucket, paths


def outlook(run: Run, names: Iterable[str]) -> list[str]:
    """A line for each of the stages: `skip (done)` or `run`, its folder, and how much there is to do.

    A stage whose settings cannot be told, because a file that shapes them is missing, says why instead; those that
    read it name it.
    """
    lines, untold = [], dict[str, str]()
    for name in names:
        try:
            fingerprint = run.identity(name)[2]
        except (ValueError, OSError) as error:
            first = untold.setdefault(str(error), name)
            lines.append(f"{name:10} cannot be told: {error if first == name else f'see {first}'}")
        else:
            lines.append(f"{name:10} {_expected(run, name, fingerprint)}")
    return lines


def ahead(run: Run, names: Sequence[str]) -> str:
    """What will run, in one line, and how long those of it took that have run below this root, each the last time.

    Other settings and other machines take other times.

    Raises:
        ValueError: if the settings of a stage cannot be told.
    """
    todo = [name for name in names if not _is_done(run, name)]
    if not todo:
        return f"{run.config.name}: all {len(names)} stages are done"
    times = {name: _last_time(run, name) for name in todo}
    known = {name: time for name, time in times.items() if time is not None}
    which = "they" if len(known) == len(todo) else ", ".join(known)
    took = f"; {which} last took {format_duration(sum(known.values()))}{' in all' * (len(known) > 1)}" if known else ""
    done = f" ({len(names) - len(todo)} of {len(names)} done)" if len(todo) < len(names) else ""
    return f"{run.config.name}: {', '.join(todo)} will run{done}{took}"


def _is_done(run: Run, name: str) -> bool:
    manifest = read_manifest(run.folder / name / run.identity(name)[2] / "manifest.json")
    return manifest is not None and not _lost(manifest)


def _last_time(run: Run, name: str) -> float | None:
    """Seconds that the stage took when it last ran in any run of this root."""
    last = paths.newest(paths.matching(run.folder.parent, f"*/{name}/*/timing.json"))
    timing = publish.read_sealed(last) if last else None
    return None if timing is None else float(timing["seconds"])


def _expected(run: Run, name: str, fingerprint: str) -> str:
    folder = run.folder / name / fingerprint
    manifest = read_manifest(folder / "manifest.json")
    lost = _lost(manifest) if manifest else 0
    if manifest and not lost:
        return (
            f"{_found(run, name, manifest)}  {_with(folder, [f'files {len(manifest.files)}', _told(manifest.counts)])}"
        )
    done = len(paths.matching(folder, ".units/*.json")) if not manifest else 0
    known = [_told(run.size(name))]
    known += [f"{lost} files are missing or cut short"] if lost else []
    known += [f"goes on after {done} units that are done"] if done else []
    return f"run          {_with(folder, known)}"


def _found(run: Run, name: str, manifest: Manifest) -> str:
    """What is done with a stage that is finished."""
    if not run.doubt(name, manifest):
        return "skip (done)"
    does = {"warn": "skip", "remake": "run", "error": "stop"}[run.config.stale]
    return f"{does} (done by other code)"


def _with(folder: Path, known: Iterable[str]) -> str:
    told = "; ".join(filter(None, known))
    return f"{bucket.address(folder)}{': ' if told else ''}{told}"


def _lost(manifest: Manifest) -> int:
    sizes = paths.sizes(manifest.folder)
    return sum(sizes(file.path) != file.bytes for file in manifest.files)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in counts.items())
