"""The stage machinery on a stage of three units that note each time they run."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.session import ROOT
from cluster.engine.stage import (
    DamagedFileError,
    Manifest,
    Output,
    Stage,
    StageError,
    Unit,
    fingerprint,
    read_file,
    read_manifest,
    write_file,
)
from tests.cluster.killed import leftovers

UNITS = ("a", "b", "c")


@dataclasses.dataclass(frozen=True)
class Text:
    """The settings of the noted stage."""

    text: str


STAGE = Stage("noted", lambda config: (), lambda config: Text("x"), lambda work: ([], {}))


class Note:
    """Writes two files for a unit; notes that it ran; fails or dies at units that a file in `folder` names."""

    def __init__(self, folder: Path, text: str):
        self.folder, self.text = folder, text

    def __call__(self, unit):
        with (self.folder / "ran").open("a") as file:
            file.write(unit.name)
        if (self.folder / f"fail-{unit.name}").exists():
            raise ValueError(f"bad input in {unit.payload}")
        data = (self.text + unit.payload).encode()
        files = {f"{unit.name}.bin": data * 100, f"sub/{unit.name}.txt": data}
        return Output(files, {f"{unit.name}.bin": 2}, {"images": 2, "rejected": int(unit.name == "b")})


@pytest.fixture
def made(tmp_path, start):
    """A function (text="x") -> Manifest or error that runs a fresh `Run`'s ensure() of the noted stage."""
    notes = tmp_path / "notes"
    notes.mkdir()

    def make(text="x"):
        run = start(Config(name="test", root=str(tmp_path / "runs")))

        def work(given):
            units = [Unit(name, f"unit-{name}") for name in UNITS]
            return given.map("noted", Note(notes, given.settings.text), units)

        run._stages = {"noted": Stage("noted", lambda config: (), lambda config: Text(text), work)}
        make.run = run
        return run.ensure("noted")

    make.notes = notes
    return make


def ran(made):
    """How often each unit ran since this was last asked."""
    path = made.notes / "ran"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return Counter(text)


def contents(manifest):
    return {file.path: (manifest.folder / file.path).read_bytes() for file in manifest.files}


def test_manifest_of_a_finished_stage(made):
    manifest = made()
    assert [file.path for file in manifest.files] == [
        "a.bin", "sub/a.txt", "b.bin", "sub/b.txt", "c.bin", "sub/c.txt",
    ]  # fmt: skip
    assert [file.count for file in manifest.files] == [2, 0] * 3
    assert manifest.counts == {"images": 6, "rejected": 1}
    assert (manifest.stage, manifest.settings, manifest.inputs) == ("noted", {"text": "x"}, {})
    assert manifest.folder.name == manifest.fingerprint
    assert manifest.path("b.bin") == manifest.folder / "b.bin"
    assert read_manifest(manifest.folder / "manifest.json") == manifest
    with pytest.raises(ValueError, match=r"expected files \*\.tar in the noted stage, .* has none"):
        manifest.named(".tar")
    for file in manifest.files:
        assert len(read_file(manifest.folder, file)) == file.bytes


def test_the_copy_above_the_folders_has_right_paths(made):
    manifest = made()
    top = manifest.folder.parent / "manifest.json"
    value = json.loads(top.read_text())
    assert value["counts"] == manifest.counts
    assert [file["path"] for file in value["files"]] == [f"{manifest.fingerprint}/{f.path}" for f in manifest.files]
    for file in value["files"]:
        assert (top.parent / file["path"]).stat().st_size == file["bytes"]
    other = made("y")
    assert json.loads(top.read_text())["fingerprint"] == other.fingerprint
    made("x")  # found done, not made: the copy follows all the same
    assert json.loads(top.read_text())["fingerprint"] == manifest.fingerprint


def test_a_done_stage_is_skipped(made):
    before = contents(made())
    assert made.run.fresh == ["noted"]
    assert ran(made) == {"a": 1, "b": 1, "c": 1}
    times = {path: (made().folder / path).stat().st_mtime_ns for path in before}
    manifest = made()
    assert made.run.fresh == []
    assert ran(made) == {}
    assert contents(manifest) == before
    assert {path: (manifest.folder / path).stat().st_mtime_ns for path in before} == times


def test_another_configuration_goes_to_another_folder(made):
    first, second = made("x"), made("y")
    assert first.folder != second.folder
    assert first.folder.parent == second.folder.parent
    assert contents(first)["sub/a.txt"] == b"xunit-a"
    assert contents(second)["sub/a.txt"] == b"yunit-a"


def test_everything_that_shapes_the_output_is_in_the_fingerprint():
    found = [
        fingerprint(STAGE, {"a": 1}, {}),
        fingerprint(STAGE, {"a": 2}, {}),
        fingerprint(STAGE, {"a": 1}, {"above": "0123"}),
        fingerprint(dataclasses.replace(STAGE, version=2), {"a": 1}, {}),
        fingerprint(dataclasses.replace(STAGE, name="other"), {"a": 1}, {}),
    ]
    assert len(set(found)) == 5
    assert found[0] == fingerprint(STAGE, {"a": 1}, {})
    assert len(found[0]) == 12


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_lost_or_cut_file_is_made_again_by_its_unit_alone(made, damage):
    manifest = made()
    before = contents(manifest)
    ran(made)
    path = manifest.folder / "b.bin"
    path.unlink() if damage == "lost" else path.write_bytes(before["b.bin"][:10])
    again = made()
    assert ran(made) == {"b": 1}
    assert contents(again) == before
    assert again == manifest


def test_a_lost_unit_record_or_manifest(made):
    manifest = made()
    before = (manifest.folder / "manifest.json").read_bytes()
    ran(made)
    (manifest.folder / "manifest.json").unlink()
    made()
    assert ran(made) == {}  # the units' own records are enough
    (manifest.folder / "manifest.json").unlink()
    (manifest.folder / ".units" / "c.json").unlink()
    made()
    assert ran(made) == {"c": 1}
    assert (manifest.folder / "manifest.json").read_bytes() == before


def test_failed_units_are_named_others_kept_and_only_they_done_again(made):
    (made.notes / "fail-b").touch()
    with pytest.raises(StageError) as error:
        made()
    assert str(error.value) == (
        "noted: 1 of 3 shards failed (b: ValueError: bad input in unit-b); the others are kept, run again to retry"
    )
    assert ran(made) == {"a": 1, "b": 1, "c": 1}
    folder = next(path for path in (made.run.folder / "noted").iterdir() if path.is_dir())
    assert not (folder / "manifest.json").exists()
    assert {path.name for path in folder.glob("*.bin")} == {"a.bin", "c.bin"}
    (made.notes / "fail-b").unlink()
    manifest = made()
    assert ran(made) == {"b": 1}
    assert [file.path for file in manifest.files][2:4] == ["b.bin", "sub/b.txt"]


def test_the_manifest_is_written_last(made, monkeypatch):
    order = []
    real = publish.write_bytes

    def noted(path, data):
        order.append(path.name)
        return real(path, data)

    monkeypatch.setattr(publish, "write_bytes", noted)
    made()
    assert order[0] == ".made_by.json"
    assert {"a.bin", "b.bin", "c.bin"} < set(order[1:-3])
    assert order[-3:] == ["timing.json", "manifest.json", "manifest.json"]  # the last is the run's copy


def test_what_workers_left_half_written_that_died_is_gone_in_the_end(made, monkeypatch):
    real = publish.write_bytes

    def second_try(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".bin":
            path.with_name(f".{path.name}.first-try.tmp").write_bytes(data[:1])
        return real(path, data)

    monkeypatch.setattr(publish, "write_bytes", second_try)
    assert leftovers(made().folder) == []


def test_two_runs_on_one_folder(made):
    manifest = made()
    (manifest.folder / "manifest.json").unlink()
    with publish.only_writer(manifest.folder), pytest.raises(ValueError, match=r"another run is writing .*/noted/"):
        made()
    assert made().fingerprint == manifest.fingerprint


def test_a_run_killed_before_the_manifest_goes_on(made, tmp_path):
    """A process dies of SIGKILL after one unit, holding the lock: the next run finds the unit and does the rest."""
    folder = tmp_path / "runs" / "test" / "noted" / fingerprint(STAGE, {"text": "x"}, {})
    script = (
        "import os, pathlib, sys\n"
        "from cluster.engine import publish\n"
        "from cluster.engine.stage import Publisher, Unit\n"
        "from tests.cluster.engine.test_stage import Note\n"
        "notes, folder = map(pathlib.Path, sys.argv[1:])\n"
        "with publish.only_writer(folder):\n"
        "    Publisher(Note(notes, 'x'), folder)(Unit('a', 'unit-a'))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, made.notes, folder]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    assert ran(made) == {"a": 1}
    made()
    assert ran(made) == {"b": 1, "c": 1}


@pytest.mark.parametrize("damage", [b"y" + b"x" * 9, b"x" * 9, b""])
def test_damaged_files_are_noticed_when_read(tmp_path, damage):
    file = write_file(tmp_path, "shard.tar", b"x" * 10, 1)
    assert read_file(tmp_path, file) == b"x" * 10
    (tmp_path / "shard.tar").write_bytes(damage)
    with pytest.raises(
        ValueError, match=r"shard.tar is damaged: expected 10 bytes .*delete it and run its stage again"
    ):
        read_file(tmp_path, file)


def test_a_stage_that_was_not_run_is_named(start, tmp_path):
    run = start(Config(name="test", root=str(tmp_path)))
    with pytest.raises(StageError, match=r"stage label was not run; run jobs.pipeline, or a later stage"):
        run.manifest("label")


def test_path_wants_exactly_one_whole_file(tmp_path):
    files = tuple(write_file(tmp_path, name, name.encode()) for name in ("a.tar", "b.tar"))
    manifest = Manifest("s", "f", tmp_path, {}, {}, {}, files)
    assert manifest.named(".tar") == list(files)
    assert manifest.path("b.tar") == tmp_path / "b.tar"
    (tmp_path / "b.tar").write_bytes(b"b.taR")
    with pytest.raises(DamagedFileError, match=r"b.tar is damaged: expected 5 bytes"):
        manifest.path("b.tar")
    (tmp_path / "b.tar").unlink()
    with pytest.raises(DamagedFileError, match=r"got no file"):
        manifest.path("b.tar")
