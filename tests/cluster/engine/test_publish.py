import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.engine import publish


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_their_sha256(tmp_path):
    told = publish.write_bytes(tmp_path / "a" / "b.bin", b"abc")
    assert told == {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"abc"
    assert names(tmp_path / "a") == ["b.bin"]


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_a_failure_in_between_leaves_the_old_file(tmp_path, monkeypatch, point):
    path = tmp_path / "file"
    publish.write_bytes(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[point], full)
    with pytest.raises(OSError, match="No space left"):
        publish.write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_process_killed_before_the_rename_leaves_the_old_file(tmp_path):
    publish.write_bytes(tmp_path / "file", b"old")
    script = (
        "import os, pathlib, sys\n"
        "from cluster.engine import publish\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "publish.write_bytes(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "file"], check=False)
    assert done.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"
    publish.write_bytes(tmp_path / "file", b"new")  # what the killed one left is in nobody's way
    assert (tmp_path / "file").read_bytes() == b"new"


def test_json_is_the_same_for_equal_values(tmp_path):
    publish.write_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    publish.write_json(tmp_path / "b.json", {"a": ["é"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert publish.read_json(tmp_path / "a.json") == {"a": ["é"], "b": 1}


def test_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "stage"
    refused = pytest.raises(ValueError, match=r"another run is writing .*choose another name=")
    with publish.only_writer(folder), refused, publish.only_writer(folder):
        pass
    with publish.only_writer(folder):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from cluster.engine import publish\n"
        "with publish.only_writer(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert done.returncode == -9
    with publish.only_writer(tmp_path):
        pass


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日" * 85], ids=["one byte", "two bytes", "three bytes"])
def test_a_name_may_be_as_long_as_a_file_system_takes(tmp_path, name):
    publish.write_bytes(tmp_path / name, b"abc")
    assert names(tmp_path) == [name]
