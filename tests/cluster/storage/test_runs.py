"""Runs whose root is a bucket: the bytes of a folder's, on one machine and on others, after kills and damage."""

import logging

import pytest

from cluster.engine import publish
from cluster.engine.outlook import outlook
from cluster.storage import bucket, lease, paths
from cluster.tracking.journal import Journal, read_events

STAGES = ("shard", "sample", "kmeans", "label", "pair")


def contents(run, stages=STAGES):
    """Every file that a manifest of these stages names, with its bytes, and the manifests."""
    manifests = (path for stage in stages for path in paths.matching(run.folder, f"{stage}/*/manifest.json"))
    return {name: data for path in manifests for name, data in files_of(path.parent).items()}


def files_of(folder):
    """The same of one stage's folder, by the stage's name and their own."""
    names = [file["path"] for file in publish.read_sealed(folder / "manifest.json")["files"]]
    return {f"{folder.parent.name}/{name}": paths.read_bytes(folder / name) for name in (*names, "manifest.json")}


@pytest.fixture(scope="module")
def stored(door, configure, start, tmp_path_factory):
    """The tiny preset's run up to its tasks, in the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSS_CACHE", str(tmp_path_factory.mktemp("stored")))
        run = start(configure("s3://bucket/runs"))
        run.ensure("pair")
        yield run


@pytest.fixture(scope="module")
def plain(configure, start, tmp_path_factory):
    """The same run in a folder."""
    run = start(configure(tmp_path_factory.mktemp("plain")))
    run.ensure("pair")
    return run


def test_a_bucket_holds_the_bytes_of_a_folder(stored, plain):
    for stage in STAGES:  # other tests of this module add stages with other settings to the bucket
        assert files_of(stored.manifest(stage).folder) == files_of(plain.manifest(stage).folder)
    assert {path.name for path in paths.matching(stored.folder, "*")} == {*STAGES, "tracking"}
    there = {name.rpartition("/")[2] for name in bucket.listing("bucket/runs")}
    assert not [name for name in there if name.startswith((".lock", ".probe", ".seen")) or name.endswith(".tmp")]


def test_another_machine_finds_what_is_done_and_goes_on(stored, machine, configure, start, tmp_path):
    machine("second")
    run = start(configure("s3://bucket/runs"))
    assert all("skip (done)" in line for line in outlook(run, STAGES))
    assert str(tmp_path) not in "".join(outlook(run, STAGES))
    run.ensure("pair")
    assert run.fresh == []
    other = start(configure("s3://bucket/runs", "pair.tasks_per_image=2"))
    other.ensure("pair")
    assert other.fresh == ["pair"]
    journal = bucket.get(f"bucket/runs/tiny/tracking/{other.journal_name('pair')}.jsonl")
    assert b'"status": "FINISHED"' in journal


def test_a_damaged_object_is_made_again(stored, machine, configure, start, caplog):
    machine("second")
    run = start(configure("s3://bucket/runs", "pair.tasks_per_image=3"))
    run.ensure("label")
    labels = run.manifest("label")
    path = labels.folder / labels.named(".tar")[0].path
    whole = paths.read_bytes(path)
    bucket.put(bucket.key(path), whole[:-1] + bytes([whole[-1] ^ 1]))
    path.unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        run.ensure("pair")
    assert "s3://bucket/runs/tiny/label/" in caplog.text
    assert "deleted, its stage makes it again" in caplog.text
    assert paths.read_bytes(path) == whole
    assert run.fresh == ["pair", "label"]


class KilledError(BaseException):
    """The end of a machine: nothing is done after it."""


@pytest.mark.parametrize("point", ["before_rename", "after_rename"])
def test_a_machine_that_is_lost_is_followed_by_another(machine, configure, start, plain, monkeypatch, point):
    def lost(where, name):
        if (where, name) == (point, "corpus-000001.json"):
            raise KilledError

    root = f"s3://bucket/{point}"
    monkeypatch.setattr(lease, "DEAD", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_failpoint", lost)
        patch.setattr(lease, "_give_back", lambda *_: None)
        with pytest.raises(KilledError):
            start(configure(root)).ensure("shard")
    machine("second")
    run, made = start(configure(root)), []
    monkeypatch.setattr(publish, "_failpoint", lambda where, name: made.append(name))
    run.ensure("shard")
    assert contents(run, ["shard"]) == contents(plain, ["shard"])
    assert ("corpus-000001.tar" in made) == (point != "after_rename")
    assert "corpus-000000.tar" not in made


def test_a_busy_store_changes_nothing(door, machine, configure, start, plain, monkeypatch):
    inner = door.inner

    def at_times(environ, start_response):
        door.refused = int(len(door.requests) % 17 == 0)
        return inner(environ, start_response)

    monkeypatch.setattr(door, "inner", at_times)
    run = start(configure("s3://bucket/busy"))
    run.ensure("shard")
    assert contents(run, ["shard"]) == contents(plain, ["shard"])


def test_a_journal_goes_on_where_another_machine_left_it(folder, machine):
    with Journal(folder, "train") as journal:
        journal.metrics({"loss": 1.0}, step=1)
    machine("second")
    there = paths.place(bucket.address(folder))
    with Journal(there, "train") as journal:
        journal.metrics({"loss": 9.0, "iou": 0.5}, step=1)
    machine("first")
    with Journal(folder, "train") as journal:
        journal.metrics({"loss": 0.5}, step=2)
    events, _ = read_events(folder / "train.jsonl")
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert [event["values"] for event in events if event["kind"] == "metrics"] == [
        {"loss": 1.0}, {"iou": 0.5}, {"loss": 0.5},
    ]  # fmt: skip


def test_what_was_journaled_before_a_kill_and_lies_here_alone_is_kept(folder):
    with Journal(folder, "train") as journal:
        journal.metrics({"loss": 1.0}, step=1)
    path = folder / "train.jsonl"
    whole = path.read_bytes()
    bucket.put(bucket.key(path), whole[: whole.index(b"\n") + 1])
    with Journal(folder, "train") as journal:
        journal.metrics({"loss": 2.0}, step=2)
    assert bucket.get(bucket.key(path)).startswith(whole)


def test_a_root_that_cannot_be_is_refused_before_any_work(machine, configure, start):
    for root, said in {
        "gs://bucket/runs": "expected a path on a disk, got 'gs://bucket/runs'; .* root=s3://BUCKET/FOLDER",
        "s3://": "expected s3://BUCKET/FOLDER",
    }.items():
        with pytest.raises(ValueError, match=said):
            start(configure(root))
    with pytest.raises(ValueError, match="root: expected a bucket that can be written at s3://other/runs/tiny"):
        start(configure("s3://other/runs")).ensure("shard")
    with (
        pytest.raises(ValueError, match=r"tracking.uri: expected MLflow's address"),
        start(configure("s3://bucket/runs", "tracking.enabled=true")),
    ):
        pass


def test_a_model_is_found_and_copied(folder, machine, tmp_path):
    from cluster.serving import registry

    for number, name in enumerate(["train/a/model", "train/b/model"]):
        publish.write_bytes(folder / name / "model.json", b"{}")
        publish.write_bytes(folder / name / "model.safetensors", bytes([number]))
    machine("second")
    address = bucket.address(folder)
    for given in (f"{address}/train/a/model", f"{address}/train/a"):
        assert (registry.folder(given, tmp_path) / "model.safetensors").read_bytes() == b"\0"
    with pytest.raises(ValueError, match=f"expected an exported model .* at {address}/none"):
        registry.folder(f"{address}/none", tmp_path)


def test_what_a_training_has_written_is_not_asked_for(folder, door):
    import torch

    from cluster.train import candidates
    from cluster.training import checkpoint

    kept = checkpoint.Checkpoints(folder / "checkpoints", 1)
    for step in (1, 2):
        door.requests.clear()
        kept.write(step, {"w": torch.zeros(2)}, {"run": "a"})
        candidates.write(folder, step, b"weights", {"iou": step / 10})
    assert [method for method, _ in door.requests] == ["PUT", "PUT", "POST", "PUT", "PUT"]  # two, the old one goes, two
    door.requests.clear()
    assert [one.step for one in candidates.read(folder)] == [1, 2]
    assert not [path for _, path in door.requests if path.endswith(candidates.WEIGHTS)]


def test_images_of_a_journal_go_with_it(folder, door):
    from cluster.tracking.journal import Journal

    with Journal(folder / "tracking", "train") as journal:
        door.requests.clear()
        for step in (1, 2):
            journal.image("examples", b"png", step)
        assert door.requests == []
    *images, last = [path for method, path in door.requests if method == "PUT"]
    assert len(images) == 2
    assert last.endswith("train.jsonl")
    assert all(path.endswith("-examples.png") for path in images)


def test_checkpoints_and_candidates_of_another_machine_are_found(folder, machine):
    import torch

    from cluster.train import candidates
    from cluster.training import checkpoint

    kept = checkpoint.Checkpoints(folder / "checkpoints", 2)
    for step in (1, 2, 3):
        kept.write(step, {"w": torch.full((2,), float(step))}, {"run": "a"})
        candidates.write(folder, step, b"weights", {"iou": step / 10})
    machine("second")
    there = paths.place(bucket.address(folder))
    assert [path.name for path in paths.matching(there / "checkpoints", "*")] == ["step-00000002", "step-00000003"]
    step, state = checkpoint.newest(there / "checkpoints", {"run": "a"})
    assert (step, state["w"].tolist()) == (3, [3.0, 3.0])
    assert [one.step for one in candidates.read(there)] == [1, 2, 3]
    assert candidates.read(there)[0].path.read_bytes() == b"weights"
    bucket.put(bucket.key(there / "checkpoints/step-00000003/state.safetensors"), b"damaged")
    assert checkpoint.newest(there / "checkpoints", {"run": "a"})[0] == 2
    assert checkpoint.drop(there / "checkpoints", 3) == 1
    assert paths.matching(there / "checkpoints", "*") == [there / "checkpoints/step-00000002"]
