"""Tasks of several runs: whose they are, that workers and places change nothing, and what is refused."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cluster.engine import publish
from cluster.engine.manifest import point_to, read_manifest
from cluster.engine.stage import write_file
from cluster.train import candidates
from cluster.train.tasks import mixed
from cluster.train.tasks.written import TaskFiles, written
from fss import shards
from fss.imaging import images
from fss.segmenter import read_about
from fss.tasks import task


def sample(name, number, shots):
    keys = [f"{name}{number}-{place}" for place in range(1 + shots)]
    pictures = [images.encode_jpeg(Image.new("RGB", (16, 16), (20 * number % 250,) * 3)) for _ in keys]
    masks = [np.eye(16, dtype=np.uint8) for _ in keys]
    return task.encode(f"{number:08d}", keys, pictures, masks, {"distractors": 0})


def made(root, name, counts=(5, 3), held=2, shots=1, corpus="c0", names=()):
    """A run's folder whose pair stage wrote so many tasks a shard, of labels of a source that has seen `names`."""
    folder = root / name / "pair" / f"fp-{name}"
    files, number = [], 0
    for shard, count in enumerate((*counts, held)):
        kind = "holdout" if shard == len(counts) else "tasks"
        data = shards.pack(sample(name, number + place, shots) for place in range(count))
        files.append(write_file(folder, f"{kind}-{shard:05d}.tar", data, count))
        number += count
    about = {"stage": "pair", "fingerprint": folder.name, "settings": {}, "counts": {}}
    about |= {"inputs": {"shard": corpus, "label": "l0"}, "files": [dataclasses.asdict(file) for file in files]}
    publish.write_sealed(folder / "manifest.json", about)
    labels = {
        "stage": "label",
        "fingerprint": "l0",
        "settings": {"source": {"names": [*names]}},
        "inputs": {},
        "counts": {},
    }
    publish.write_sealed(root / name / "label" / "l0" / "manifest.json", labels | {"files": []})
    point_to(read_manifest(folder / "manifest.json"))
    return str(root / name)


def keys(files, seed, stop, rank=0, world=1, start=0, batch=4):
    """The query's key of every episode of batches start..stop-1 that this rank gets."""
    layout = task.BatchLayout(5, 4, True, 16)
    data = task.Batches(mixed.order(files, seed), files, batch, seed, 2, layout, rank=rank, world=world)
    return [[row[0][0] for row in data[number].images] for number in range(start, stop)]


@pytest.fixture
def runs(tmp_path):
    return made(tmp_path, "a"), made(tmp_path, "b", counts=(4,), corpus="c1"), made(tmp_path, "d", counts=(2, 7))


def own(tmp_path):
    return written(read_manifest(tmp_path / "own" / "pair" / "fp-own" / "manifest.json"))


def test_episodes_come_in_the_stated_proportions_and_each_source_in_full(runs, tmp_path):
    """Half of `a`, a fifth of `b` in other pictures, the rest of the run's own."""
    made(tmp_path, "own")
    mix = {runs[0]: 0.5, runs[1]: 0.2}
    train_files, held = mixed.mixed(own(tmp_path), mix, "c0")
    assert sum(train_files.counts) == 8 + 8 + 4
    names = [name for batch in keys(train_files, 0, 20) for name in batch]
    sources = Counter("b" if name.startswith("c1-b") else name.rstrip("0123456789-") for name in names)
    assert sources == {"a": 40, "b": 16, "own": 24}
    uses = Counter(names)
    assert {uses[f"a{n}-0"] for n in range(8)} == {5}  # 40 episodes of 8 tasks
    assert {uses[f"c1-b{n}-0"] for n in range(4)} == {4}
    assert {uses[f"own{n}-0"] for n in range(8)} == {3}
    shown = Counter(name[:1] for batch in keys(held, 0, 1, batch=mixed.order(held, 0).size) for name in batch)
    assert shown["a"] == 2  # before any held-out task comes again


@pytest.mark.parametrize("world", [2, 4])
def test_workers_and_the_place_where_one_goes_on_change_nothing(runs, world):
    files, _ = mixed.mixed(None, {runs[0]: 0.4, runs[1]: 0.35, runs[2]: 0.25}, None)
    whole = keys(files, 3, 8)
    parts = [keys(files, 3, 8, rank, world) for rank in range(world)]
    assert [[parts[e % world][number][e // world] for e in range(4)] for number in range(8)] == whole
    assert keys(files, 3, 8, start=5) == whole[5:]
    assert keys(files, 4, 8) != whole


def test_the_identity_is_the_pairs_and_their_shares_not_their_places(runs, tmp_path):
    found = mixed.settings({runs[0]: 0.4, runs[1]: 0.6})
    assert found == {"fp-a": 400, "fp-b": 600}
    stage = str(tmp_path / "a" / "pair" / "fp-a")
    assert shards.dumps(mixed.settings({runs[1]: 0.6, stage: 0.4})) == shards.dumps(found)
    assert mixed.settings({}) == {}


def test_a_model_says_which_names_any_of_its_sources_has_seen(runs, tmp_path):
    """Evaluation refuses to test on `classes`, whichever source brought them in."""
    named = made(tmp_path, "named", names=["dog", "cat"])
    alone = mixed.facts({runs[0]: 0.5}, {})
    assert alone == {"mix": {"fp-a": 500}}
    found = mixed.facts({named: 0.5}, {})
    assert found == {"mix": {"fp-named": 500}, "labelled": "names", "classes": ["cat", "dog"]}
    both = mixed.facts({named: 0.5}, {"labelled": True, "classes": ["dog", "sheep"], "fold": 2})
    assert both == {"mix": {"fp-named": 500}, "labelled": True, "classes": ["cat", "dog", "sheep"]}
    (tmp_path / "named" / "label" / "l0" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"in .*/named, beside its pairs, the label stage .*; run jobs.pair"):
        mixed.facts({named: 0.5}, {})


def test_only_the_prefix_tells_pictures_of_another_corpus_apart(runs):
    files, _ = mixed.mixed(None, {runs[0]: 0.5, runs[1]: 0.5}, "c1")
    assert {files(0, 0)[0].keys[0][:4], files(2, 0)[0].keys[0][:1]} == {"c0-a", "b"}
    plain = TaskFiles(files.parts[1].tasks.folder, files.parts[1].tasks.files)
    assert files(2, 0)[1].jpegs == plain(0, 0)[1].jpegs


def test_what_cannot_be_mixed_is_refused(runs, tmp_path):
    with pytest.raises(
        ValueError, match=r"expected the folder of a run whose pairs are done, got .*/nobody, which is not"
    ):
        mixed.settings({str(tmp_path / "nobody"): 0.5})
    (tmp_path / "begun" / "pair" / "fp").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"got .*/begun; run jobs.pair with that run's arguments first"):
        mixed.settings({str(tmp_path / "begun"): 0.5})
    with pytest.raises(ValueError, match="have the same pairs; give them one share together"):
        mixed.settings({runs[0]: 0.5, f"{runs[0]}/pair/fp-a": 0.2})
    (tmp_path / "b" / "pair" / "fp-b" / "tasks-00000.tar").unlink()
    with pytest.raises(ValueError, match=r"b lacks tasks-00000.tar of its pairs; run jobs.pair"):
        mixed.settings({runs[1]: 0.5})
    five = made(tmp_path, "five", shots=5)
    with pytest.raises(ValueError, match=r"one number of supports, .*got 1 in .*/a, 5 in .*/five; set pair.shots"):
        mixed.mixed(None, {runs[0]: 0.5, five: 0.5}, None)
    none = made(tmp_path, "none", counts=())
    with pytest.raises(ValueError, match=r"expected tasks in .*none, got none"):
        mixed.mixed(None, {runs[0]: 0.5, none: 0.5}, None)


def test_a_source_without_held_out_tasks_is_left_out_of_validation(runs, tmp_path):
    bare = made(tmp_path, "bare", held=0)
    _, held = mixed.mixed(None, {runs[0]: 0.5, bare: 0.5}, None)
    assert [part.name for part in held.parts] == [runs[0]]


def test_a_run_trains_on_the_pairs_of_others_alone(tiny_run, configure, start, tmp_path):
    """Under Ray: two pair stages of the tiny run's corpus, mixed by a run that needs no stage but training."""
    root = tiny_run.config.root
    more = start(configure(root, "pair.tasks_per_image=2", "pair.min_area=0.03"))
    first, second = tiny_run.manifest("pair"), more.ensure("pair")
    assert first.fingerprint != second.fingerprint
    mix = f"train.mix={{{first.folder}:0.75,{second.folder}:0.25}}"
    run = start(configure(tmp_path, mix, "train.steps=4", "name=mixture"))
    assert run.order("train") == ["train"]
    folder = run.ensure("train").folder
    assert [one.step for one in candidates.read(folder)] == [1, 2, 3, 4]
    facts = read_about(folder / "model")["facts"]
    assert facts["mix"] == {first.fingerprint: 750, second.fingerprint: 250}
    assert run.settings("train").mix == facts["mix"]
    assert tiny_run.settings("train").mix == {}
