"""What a run would do, stage by stage; nothing is started, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.engine.manifest import Manifest, read_manifest
from cluster.engine.run import Run


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


def _expected(run: Run, name: str, fingerprint: str) -> str:
    folder = run.folder / name / fingerprint
    manifest = read_manifest(folder / "manifest.json")
    lost = _lost(manifest) if manifest else 0
    if manifest and not lost:
        return f"skip (done)  {_with(folder, [f'files {len(manifest.files)}', _told(manifest.counts)])}"
    done = len(list((folder / ".units").glob("*.json"))) if not manifest else 0
    known = [_told(run.size(name))]
    known += [f"{lost} files are missing or cut short"] if lost else []
    known += [f"goes on after {done} units that are done"] if done else []
    return f"run          {_with(folder, known)}"


def _with(folder: Path, known: Iterable[str]) -> str:
    told = "; ".join(filter(None, known))
    return f"{folder}{': ' if told else ''}{told}"


def _lost(manifest: Manifest) -> int:
    paths: Iterable[tuple[Path, int]] = ((manifest.folder / file.path, file.bytes) for file in manifest.files)
    return sum(not path.is_file() or path.stat().st_size != size for path, size in paths)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in counts.items())
