"""kill -9 of a process at every step of publishing: the same bytes as an undisturbed run's."""

import json
import subprocess
import sys

import pytest

from cluster.engine import publish
from cluster.engine.session import ROOT
from cluster.engine.stage import Publisher, Unit, read_file
from tests.cluster.crashes import CRASHES, REFINED_CRASHES
from tests.cluster.here import here
from tests.cluster.index.test_index import MODEL
from tests.cluster.killed import check_ledger, leftovers, published, python, tiny
from tests.cluster.refine.test_refine import LOOSE, PAIR


def check_chain(crashes, root, *overrides, **variables):
    """Every process of the chain dies where it should, and then the run is finished."""
    done = python("-m", "tests.cluster.crashes", "chain", root, *overrides, f"root={root}", **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("swept") == [0] * len(crashes)
    assert len(told) == sum(len(points) for names in crashes.values() for points in names.values())
    assert {point: status for point, status in told.items() if status != -9} == {}


@pytest.mark.slow
def test_a_process_killed_at_every_point_of_refining_and_of_the_index(photos, configure, tmp_path):
    more = (*LOOSE, *PAIR, *MODEL)
    check_chain(REFINED_CRASHES, tmp_path / "killed", *tiny(photos), *more)
    whole = here(configure(tmp_path / "whole", *more))
    whole.ensure("index")
    folders = tmp_path / "killed" / "tiny", whole.folder
    assert published(folders[0], REFINED_CRASHES) == published(folders[1], REFINED_CRASHES)
    assert leftovers(folders[0]) == []


@pytest.mark.slow
def test_a_process_killed_at_every_point_of_every_stage(copied, photos, tmp_path):
    folder = tmp_path / "killed" / "tiny"
    check_chain(CRASHES, folder.parent, *tiny(photos))
    copied.ensure("quality")
    assert published(folder) == published(copied.folder)
    assert leftovers(folder) == []
    check_ledger(folder)


def test_a_second_command_on_one_folder_refuses(tiny_run, configure, start, tmp_path):
    """The first one is a process that holds the folder; killed, it holds nothing."""
    run = start(configure(tmp_path))
    folder = run.folder / "shard" / run.identity("shard")[2]
    script = (
        "import pathlib, sys, time\n"
        "from cluster.engine import publish\n"
        "with publish.only_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(300)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"another run is writing .*/shard/.* choose another name= or root="):
            run.ensure("shard")
        assert {path.name for path in folder.iterdir()} == {".lock"}
    finally:
        first.kill()
        first.wait()
    assert run.ensure("shard").files == tiny_run.manifest("shard").files


class Bytes:
    """Makes a file of the unit's payload."""

    def __call__(self, unit):
        from cluster.engine.stage import Output

        return Output({f"{unit.name}.bin": unit.payload}, {f"{unit.name}.bin": 1}, {"images": 1})


def test_a_late_writer_that_was_taken_for_dead_does_no_harm(tmp_path, monkeypatch):
    """Another attempt publishes, and finishes, between the zombie's writing and its renaming; or sweeps its file."""
    from pathlib import Path

    publisher, unit, real = Publisher(Bytes(), tmp_path), Unit("a", b"abc" * 100), Path.replace
    in_between = [publisher, lambda _: publish.sweep(tmp_path)]

    def late(self, target):
        monkeypatch.setattr(Path, "replace", real)
        before = {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")}
        meanwhile(unit)
        if meanwhile is publisher:
            before = {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")}
        states.append(before)
        return real(self, target)

    states = []
    for meanwhile in in_between:
        monkeypatch.setattr(Path, "replace", late)
        if meanwhile is publisher:
            assert publisher(unit) == {"images": 1}
        else:
            with pytest.raises(FileNotFoundError):  # the zombie notices; nobody listens
                publisher(unit)
        assert {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")} == states[-1]
    assert len(states[0]) == 2
    record = publish.read_sealed(tmp_path / ".units" / "a.json")
    assert leftovers(tmp_path) == []
    from cluster.engine.stage import File

    assert read_file(tmp_path, File(**record["files"][0])) == b"abc" * 100
