"""What a run would do: skip, run, go on, of folders as stages leave them; nothing is written."""

import os

import pytest

from cluster.engine import origin, publish
from cluster.engine.outlook import ahead, outlook
from cluster.engine.run import Run
from cluster.stages import STAGES


@pytest.fixture
def run(configure, tmp_path):
    return Run(configure(tmp_path / "runs"), STAGES)


def finish(run, name, files):
    """Leave the folder of stage `name` as it is when the stage is done."""
    settings, inputs, fingerprint = run.identity(name)
    folder = run.folder / name / fingerprint
    written = [{"path": path, "count": 1, **publish.write_bytes(folder / path, data)} for path, data in files.items()]
    value = {"stage": name, "version": 1, "fingerprint": fingerprint, "settings": settings, "inputs": inputs}
    value["made_by"] = {"code": origin.code(STAGES[name].work.__module__)}
    publish.write_sealed(folder / "manifest.json", value | {"counts": {"images": 24}, "files": written})
    return folder


def lines(run, *names):
    return [" ".join(line.split()) for line in outlook(run, names)]


def test_before_anything_is_done_all_would_run(run):
    told = lines(run, "shard", "label")
    assert [line.split()[:2] for line in told] == [["shard", "run"], ["label", "run"]]
    assert all(
        f"{run.folder}/{name}/{run.identity(name)[2]}" in line
        for name, line in zip(("shard", "label"), told, strict=True)
    )
    assert not run.folder.exists()


def test_how_much_there_is_to_do_is_known_before_any_work(run):
    told = dict(line.split(" ", 1) for line in lines(run, "shard", "sample", "kmeans", "label", "pair", "train"))
    assert told["shard"].endswith(": images 36, shards 3")
    for name, size in (
        ("sample", "shards 3"),
        ("kmeans", "iterations 5"),
        ("label", "shards 3"),
        ("pair", "groups 2"),
        ("train", "steps 8, episodes 32"),
    ):
        assert told[name].endswith(f": {size}")
    (evaluate,) = lines(run, "evaluate")
    assert evaluate.endswith(": episodes 16")


def test_some_shards_are_as_many_as_there_are_at_most(configure, tmp_path):
    overrides = ("source.shards=2", "quality.shards=9", "fold=all", "source.restarts=3", "backbone.weights=pretrain")
    sample, quality, kmeans, pretrain, evaluate = lines(
        Run(configure(tmp_path, *overrides), STAGES), "sample", "quality", "kmeans", "pretrain", "evaluate"
    )
    assert sample.endswith(": shards 2")
    assert quality.endswith(": shards 3")
    assert kmeans.endswith(": iterations 15")
    assert pretrain.endswith(": steps 6")
    assert evaluate.endswith(": episodes of each fold 16")


def test_what_is_done_is_skipped_and_what_it_holds_is_known(run):
    folder = finish(run, "shard", {"a.tar": b"1234", "b.tar": b"56"})
    before = sorted(folder.rglob("*"))
    shard, label = lines(run, "shard", "label")
    assert shard == f"shard skip (done) {folder}: files 2; images 24"
    assert label.split()[1] == "run"
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("policy", "word"), [("warn", "skip"), ("remake", "run"), ("error", "stop")])
def test_what_other_code_made_is_told(run, monkeypatch, policy, word):
    finish(run, "shard", {"a.tar": b"1234"})
    monkeypatch.setattr(origin, "code", lambda module: "other")
    run.config.stale = policy
    (told,) = lines(run, "shard")
    assert told.startswith(f"shard {word} (done by other code) {run.folder}/shard/")


def test_a_file_that_was_cut_short_is_made_again(run):
    folder = finish(run, "shard", {"a.tar": b"1234", "b.tar": b"56"})
    (folder / "a.tar").write_bytes(b"12")
    assert lines(run, "shard") == [f"shard run {folder}: images 36, shards 3; 1 files are missing or cut short"]
    assert (folder / "manifest.json").exists()


def test_units_that_are_done_are_counted(run):
    folder = run.folder / "label" / run.identity("label")[2]
    for name in ("00000", "00001"):
        publish.write_sealed(folder / ".units" / f"{name}.json", {"files": [], "counts": {}})
    assert lines(run, "label") == [f"label run {folder}: shards 3; goes on after 2 units that are done"]


def test_a_stage_whose_settings_need_a_file_that_is_not_there_says_so(configure, tmp_path):
    run = Run(configure(tmp_path, "backbone.weights=/nowhere.pth"), STAGES)
    shard, label = lines(run, "shard", "label")
    assert shard.startswith("shard run ")
    assert label.startswith("label cannot be told: ")
    assert "/nowhere.pth" in label


def test_why_is_told_once(configure, tmp_path):
    told = lines(Run(configure(tmp_path, "corpus.root=/nowhere"), STAGES), "shard", "sample", "label")
    assert [line.partition(" cannot be told: ")[2] for line in told][1:] == ["see shard", "see shard"]
    assert "/nowhere" in told[0]


def test_a_run_begins_with_what_it_will_do_and_how_long_that_took_before(run):
    names = ["shard", "label"]
    assert ahead(run, names) == "tiny: shard, label will run"
    folder = finish(run, "shard", {"a.tar": b"1234"})
    assert ahead(run, names) == "tiny: label will run (1 of 2 done)"
    other = run.folder.parent / "other" / "label"
    for number, seconds in enumerate((5.0, 754.2)):
        publish.write_sealed(other / str(number) / "timing.json", {"seconds": seconds})
        os.utime(other / str(number) / "timing.json", (number, number))
    assert ahead(run, names) == "tiny: label will run (1 of 2 done); they last took 12:34"
    some = ["sample", *names]
    assert ahead(run, some) == "tiny: sample, label will run (1 of 3 done); label last took 12:34"
    publish.write_sealed(run.folder.parent / "other/sample/0/timing.json", {"seconds": 60.0})
    assert ahead(run, ["pair", *some]).endswith("(1 of 4 done); sample, label last took 13:34 in all")
    finish(run, "label", {"b.tar": b"12"})
    assert ahead(run, names) == "tiny: all 2 stages are done"
    (folder / "a.tar").unlink()
    assert ahead(run, names) == "tiny: shard will run (1 of 2 done)"
