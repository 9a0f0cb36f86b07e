"""A run's files through their paths: published, read anew, copied, brought, and copies that make room."""

import os
import shutil
from collections import namedtuple

import pytest

from cluster.engine import files, publish
from cluster.engine.files import DamagedFileError, check_file, read_file, whole_file, write_file
from cluster.storage import bucket, paths
from tests.cluster import s3

STORES = s3.kinds()


def objects(folder):
    return sorted(bucket.listing(bucket.key(folder)))


def test_what_is_published_is_in_the_bucket_and_here(folder):
    written = publish.write_bytes(folder / "a" / "x.tar", b"data")
    assert written["bytes"] == 4
    assert objects(folder) == ["a/x.tar"]
    assert (folder / "a" / "x.tar").read_bytes() == bucket.get(bucket.key(folder / "a" / "x.tar")) == b"data"


@pytest.mark.parametrize("root", ["folder", "bucket"])
def test_a_bucket_answers_as_a_folder_does(folder, tmp_path, root):
    base = tmp_path / "runs" if root == "folder" else folder
    for name in ("a/1.json", "a/2.json", "b/3.txt"):
        publish.write_bytes(base / name, name.encode())
    assert paths.read_bytes(base / "a/1.json") == b"a/1.json"
    assert list(paths.read_each([base / "b/3.txt", base / "none", base / "a/1.json"])) == [
        b"b/3.txt",
        None,
        b"a/1.json",
    ]
    assert paths.matching(base, "*/*.json") == [base / "a/1.json", base / "a/2.json"]
    assert paths.matching(base, "none/*") == []
    assert [paths.sizes(base)(name) for name in ("a/1.json", "a", "none")] == [8, None, None]
    assert paths.newest([base / "b/3.txt"]) == base / "b/3.txt"
    assert paths.newest([]) is None
    paths.remove(base / "a/1.json")
    paths.remove(base / "a/none")
    assert paths.matching(base, "a/*") == [base / "a/2.json"]
    paths.empty(base / "b", "3.txt")
    assert paths.matching(base, "b/*") == [base / "b/3.txt"]
    paths.remove_tree(base / "a")
    assert paths.matching(base, "*") == [base / "b"]
    with pytest.raises(FileNotFoundError):
        paths.read_bytes(base / "a/2.json")


def test_what_changes_is_read_in_the_bucket(folder, machine):
    publish.write_sealed(folder / "state.json", {"step": 1})
    machine("second")
    there = paths.place(bucket.address(folder))
    assert publish.read_sealed(there / "state.json")["step"] == 1
    publish.write_sealed(there / "state.json", {"step": 2})
    machine("first")
    assert publish.read_sealed(folder / "state.json")["step"] == 2


def test_a_copy_that_is_out_of_date_or_damaged_is_not_believed(folder, machine):
    old = write_file(folder, "x.bin", b"before")
    bucket.put(bucket.key(folder / "x.bin"), b"after!")
    new = files.File("x.bin", 0, 6, files.shards.sha256(b"after!"))
    assert read_file(folder, new) == b"after!"
    assert (folder / "x.bin").read_bytes() == b"after!"
    (folder / "x.bin").write_bytes(b"befroe")
    assert check_file(folder, new).read_bytes() == b"after!"
    (folder / "x.bin").unlink()
    assert whole_file(folder, new).read_bytes() == b"after!"
    with pytest.raises(DamagedFileError, match=r"s3://bucket/.*/x.bin is damaged"):
        read_file(folder, old)
    bucket.remove([bucket.key(folder / "x.bin")])
    (folder / "x.bin").unlink()
    for look in (read_file, check_file):
        with pytest.raises(DamagedFileError, match="no file"):
            look(folder, new)


def test_a_file_is_read_from_the_bucket_once(folder, machine, door):
    file = write_file(folder, "x.bin", b"data")
    machine("second")
    there = paths.place(bucket.address(folder))
    assert read_file(there, file) == b"data"
    before = len(door.requests)
    assert read_file(there, file) == b"data"
    assert len(door.requests) == before


def test_a_folder_is_brought_whole_and_again_only_what_changed(folder, machine, door):
    for name in ("model/model.json", "model/a.bin"):
        publish.write_bytes(folder / name, name.encode())
    machine("second")
    there = paths.place(bucket.address(folder))
    assert (paths.bring(there / "model") / "a.bin").read_bytes() == b"model/a.bin"
    before = sum(method == "GET" for method, path in door.requests if path.endswith((".bin", ".json")))
    paths.bring(there / "model")
    bucket.put(bucket.key(there / "model/a.bin"), b"model/b.bin")
    paths.bring(there / "model")
    assert (there / "model" / "a.bin").read_bytes() == b"model/b.bin"
    assert sum(method == "GET" for method, path in door.requests if path.endswith((".bin", ".json"))) == before + 1
    assert paths.bring(there / "none") == there / "none"
    assert paths.here(there / "model/model.json").read_bytes() == b"model/model.json"


Usage = namedtuple("Usage", "total used free")


def test_copies_make_room_those_not_used_for_longest_first(folder, monkeypatch):
    names = ["a/old.tar", "a/older.tar", "a/new.tar", "model/old.bin", "tracking/old.jsonl", "a/.lock"]
    for name in names:
        publish.write_bytes(folder / name, bytes(100))
    paths.bring(folder / "model")
    assert [path.name for path in (folder / "model").iterdir()] == ["old.bin"]
    for name in (name for name in names if "new" not in name):
        os.utime(folder / name, (1000 - 500 * ("older" in name), 1000))
    free = {"free": 40}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 0, free["free"]))
    paths._make_room(folder)
    assert [name for name in names if not (folder / name).exists()] == ["a/older.tar"]
    free["free"] = 0
    paths._make_room(folder)
    assert [name for name in names if not (folder / name).exists()] == ["a/old.tar", "a/older.tar"]
    assert read_file(folder, files.File("a/older.tar", 0, 100, files.shards.sha256(bytes(100)))) == bytes(100)
