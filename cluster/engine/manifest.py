"""The manifest of a finished stage: its settings, its inputs' fingerprints, sums, and the sha256 of every file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.engine import publish
from cluster.engine.compute import ComputeClass
from cluster.engine.files import File, check_file
from fss import shards

#: The manifest of a finished stage of which files are being made again, in its folder.
PROMISED = ".promised.json"


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
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Code, and the driver's libraries and processor, see `cluster.engine.origin`."""
    made_of: Mapping[str, str] = field(default_factory=dict)
    """The `content` of each input."""
    made_on: tuple[ComputeClass, ...] = ()
    """The compute classes of the machines that worked for it, see `cluster.engine.compute`."""

    @property
    def content(self) -> str:
        """12 hex digits over the files' names and bytes."""
        return shards.sha256(shards.dumps([asdict(file) for file in self.files]))[:12]

    def named(self, suffix: str) -> list[File]:
        """The files whose names end in `suffix`, in order.

        Raises:
            ValueError: if there are none.
        """
        files = [file for file in self.files if file.path.endswith(suffix)]
        if not files:
            raise ValueError(f"expected files *{suffix} in the {self.stage} stage, {self.folder} has none")
        return files

    def path(self, suffix: str) -> Path:
        """The path of the only file whose name ends in `suffix`, whose bytes are checked first.

        Raises:
            DamagedFileError: if they are not what the stage wrote.
        """
        (file,) = self.named(suffix)
        return check_file(self.folder, file)


def read_manifest(path: Path) -> Manifest | None:
    """A finished stage's manifest.json; None if there is none, or if it is damaged: it can be made of the records."""
    value = publish.read_sealed(path)
    if value is None:
        return None
    return Manifest(
        stage=value["stage"],
        fingerprint=value["fingerprint"],
        folder=path.parent,
        settings=value["settings"],
        inputs=value["inputs"],
        counts=value["counts"],
        files=tuple(File(**file) for file in value["files"]),
        made_by=value.get("made_by", {}),
        made_of=value.get("made_of", {}),
        made_on=tuple(value.get("made_on", ())),
    )


def point_to(manifest: Manifest) -> None:
    """Make <stage>/manifest.json the copy of `manifest`, its paths relative to the stage's folder."""
    value = publish.read_sealed(manifest.folder / "manifest.json")
    assert value is not None, manifest.folder
    for file in value["files"]:
        file["path"] = f"{manifest.folder.name}/{file['path']}"
    target = manifest.folder.parent / "manifest.json"
    if publish.read_sealed(target) != value:
        publish.write_sealed(target, value)
