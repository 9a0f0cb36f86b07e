"""Damaged files are found by the stage that reads them, named, and only they are made again, with the same bytes."""

import hashlib
import logging
import shutil

import pytest

from cluster.engine import publish
from cluster.engine.files import DamagedFileError, File, damaged_in
from cluster.engine.run import Run
from cluster.engine.stage import StageError

STAGES = ("shard", "sample", "kmeans", "label", "pair")
#: Of each kind of file: the stage that makes it, its name, and the first stage that reads it.
KINDS = {
    "corpus": ("shard", "corpus-000001.tar", "sample"),
    "sample": ("sample", "part-000001.npy", "kmeans"),
    "clusters": ("kmeans", "clusters.safetensors", "label"),
    "labels": ("label", "labels-000001.tar", "pair"),
    "regions": ("label", "labels-000002.regions.parquet", "pair"),
}


def folder_of(run, stage):
    return run.folder / stage / run.identity(stage)[2]


def published(run):
    """sha256 and time of change of every file of the shard stages that a manifest names."""
    found = {}
    for stage in STAGES:
        for file in run.manifest(stage).files:
            path = folder_of(run, stage) / file.path
            found[stage, file.path] = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
    return found


def hurt(path, how):
    data = bytearray(path.read_bytes())
    if how == "lost":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def forget(run, stage):
    shutil.rmtree(folder_of(run, stage))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["flipped", "cut", "lost"])
def test_only_the_damaged_file_is_made_again(copied, tiny_run, caplog, kind, how):
    """The damage comes while the run is under way: its look at the sizes is over when a worker reads the file."""
    made_by, name, read_by = KINDS[kind]
    copied.ensure("pair")
    before, names = published(copied), [file.path for file in copied.manifest(made_by).files]
    forget(copied, read_by)
    for stage in STAGES[STAGES.index(read_by) :]:
        copied._manifests.pop(stage)
    path = folder_of(copied, made_by) / name
    hurt(path, how)
    with caplog.at_level(logging.WARNING):
        copied.ensure("pair")
    after = published(copied)
    assert {key: sha for key, (sha, _) in after.items()} == {key: sha for key, (sha, _) in before.items()}
    assert f"{path} is damaged: expected" in caplog.text
    touched = {file for stage, file in after if stage == made_by and after[stage, file] != before[stage, file]}
    stem = name.partition(".")[0]
    assert touched == {other for other in names if other.startswith(stem) or made_by == "kmeans"}
    untouched = set(STAGES) - {made_by, read_by}
    assert all(after[key] == before[key] for key in after if key[0] in untouched)
    assert copied.fresh == [read_by, made_by]


def test_damage_above_damage_and_two_files_at_once(copied, tiny_run, caplog):
    """Two label files and the corpus shard below one of them; tasks were not made yet."""
    copied.ensure("label")
    before = {file.path: file for file in copied.manifest("label").files}
    forget(copied, "pair")
    hurt(folder_of(copied, "label") / "labels-000000.tar", "flipped")
    hurt(folder_of(copied, "label") / "labels-000002.tar", "flipped")
    hurt(folder_of(copied, "shard") / "corpus-000002.tar", "flipped")
    copied.ensure("pair")
    assert copied.fresh[0] == "pair"
    assert sorted(set(copied.fresh[1:])) == ["label", "shard"]
    assert {file.path: file for file in copied.manifest("label").files} == before
    told = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    assert len(told) == 3
    assert {f.sha256 for f in copied.manifest("pair").files} == {f.sha256 for f in tiny_run.manifest("pair").files}
    for stage in STAGES:
        for file in copied.manifest(stage).files:
            assert hashlib.sha256((folder_of(copied, stage) / file.path).read_bytes()).hexdigest() == file.sha256


def test_damaged_tasks_are_made_again_while_training(copied, tiny_run, caplog):
    """A training worker reads them."""
    name = next(f.path for f in tiny_run.manifest("pair").files if f.path.startswith("tasks"))
    copied.config.train.max_failures = 0
    forget(copied, "train")
    path = folder_of(copied, "pair") / name
    hurt(path, "flipped")
    copied.ensure("train")
    assert f"{path} is damaged" in caplog.text
    assert copied.fresh == ["train", "pair"]
    assert path.read_bytes() == (folder_of(tiny_run, "pair") / name).read_bytes()


def test_a_disk_that_damages_a_file_again_is_an_error(copied, monkeypatch):
    copied.ensure("label")
    forget(copied, "pair")
    path = folder_of(copied, "label") / "labels-000001.tar"
    real = Run.ensure

    def bad_disk(self, name):
        manifest = real(self, name)
        if name == "label":
            hurt(path, "flipped")
        return manifest

    monkeypatch.setattr(Run, "ensure", bad_disk)
    with pytest.raises(StageError, match=r"labels-000001.tar is damaged: .* once already: check the disk"):
        copied.ensure("pair")


def test_a_file_that_comes_out_different_is_refused(copied):
    """Other stages were made of the promised bytes."""
    folder = folder_of(copied, "label")
    value = publish.read_sealed(folder / "manifest.json")
    (first,) = (file for file in value["files"] if file["path"] == "labels-000000.tar")
    first["sha256"] = "0" * 64
    publish.write_sealed(folder / "manifest.json", value)
    (folder / "labels-000001.tar").unlink()
    for _ in range(2):  # the second run does not take it for finished either
        with pytest.raises(
            StageError, match=r"labels-000000.tar was made again and came out different: .*000000000000"
        ):
            type(copied)(copied.config, copied._stages).ensure("label") if _ else copied.ensure("label")


def test_wrong_reading_of_a_whole_file_deletes_nothing(copied, caplog, tmp_path):
    file = copied.ensure("label").named(".tar")[0]
    error = StageError("pair: 1 of 2", [DamagedFileError(folder_of(copied, "label"), file, 3, "ab")])
    path = folder_of(copied, "label") / file.path
    before = path.stat().st_mtime_ns
    assert copied._doubt({path: error.damaged[0]}, error) == ["label"]
    assert path.stat().st_mtime_ns == before
    assert "but now it is whole" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", "digit"])
@pytest.mark.parametrize("name", ["manifest.json", ".units/part-000001.json", "../manifest.json", "timing.json"])
def test_damaged_manifests_and_records(copied, tiny_run, name, damage):
    """A manifest is made of the units' records, a record by its unit; nothing else is done again."""
    folder = folder_of(copied, "label")
    path = folder / name
    if damage == "digit":
        damage = path.read_bytes().replace(b'"count": 1', b'"count": 2', 1).replace(b".", b"7", 1)
    path.write_bytes(damage)
    if name.startswith(".units"):
        (folder / "manifest.json").unlink()
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("labels-*")}
    copied.ensure("label")
    touched = {p.name for p in folder.glob("labels-*") if p.stat().st_mtime_ns != before[p.name]}
    expected = {"labels-000001.tar", "labels-000001.regions.parquet"} if name.startswith(".units") else set()
    assert touched == expected
    for one in ("manifest.json", "../manifest.json"):
        theirs = tiny_run.folder / "label" / folder.name / one
        assert (folder / one).read_bytes() == theirs.read_bytes()
    assert Run.seconds(copied.manifest("label")) >= 0


def test_the_error_crosses_processes_whole(pools, tmp_path):
    import pickle

    file = File("a.tar", 1, 3, "ab" * 32)
    error = DamagedFileError(tmp_path, file, 2, "cd" * 32)
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.file, again.size, again.got, str(again)) == (
        tmp_path / "a.tar", file, 2, "cd" * 32, str(error),
    )  # fmt: skip

    def fail(_):
        raise RuntimeError("reading") from DamagedFileError(tmp_path, file, 2, "cd" * 32)

    ((_, failure),) = pools[1].map(fail, [0])
    assert [found.path for found in damaged_in(failure.error)] == [tmp_path / "a.tar"]
    assert list(damaged_in(RuntimeError("else"))) == []
