"""Training on labelled images: no novel class is ever shown, and it can be interrupted, repeated and measured."""

import dataclasses
import io
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from cluster.datasets import training
from cluster.engine.stage import File
from cluster.tracking.journal import read_events
from cluster.train.tasks import labelled
from fss import seals
from fss.datasets import scenes
from fss.imaging import images
from fss.tasks.task import Batches, BatchLayout, Schedule
from jobs._config import load

OPTIONS = ("train.tasks=labelled", "train.images=ImageSets/val.txt", "dataset.min_area=30", "train.steps=4")


@pytest.fixture(scope="module")
def run(configure, start, tmp_path_factory):
    return start(configure(tmp_path_factory.mktemp("labelled"), *OPTIONS))


@pytest.fixture(scope="module")
def opened(run, tmp_path_factory):
    work = run.work("train", tmp_path_factory.mktemp("index"))
    return labelled.open_tasks(work, work.settings.labelled, training.given(run.config), work.settings.holdout)


def every(part):
    return [part(0, epoch)[place] for epoch in range(3) for place in range(sum(part.counts))]


def test_masks_show_one_class_that_the_fold_does_not_test(opened, photos):
    dataset = scenes.dataset(str(photos), "ImageSets/val.txt")
    for part in opened:
        for task in every(part):
            assert len(set(task.keys)) == len(task.keys) == 2
            shown = set(range(6, 21))
            for key, jpeg, png in zip(task.keys, task.jpegs, task.masks, strict=True):
                assert jpeg == dataset.path(key).read_bytes()
                mask, truth = images.decode_labels(png), dataset.mask(key)
                assert set(np.unique(mask)) <= {0, 1, 255}
                assert np.array_equal(mask == 255, truth == 255)
                (found,) = np.unique(truth[mask == 1])
                assert (truth[mask == 0] != found).all()
                shown &= {int(found)}
            assert len(shown) == 1


def test_validation_images_are_never_trained_on(opened):
    train, held = opened
    kept = {task.keys[0] for task in every(held)}
    assert kept
    assert not kept & {key for task in every(train) for key in task.keys}
    assert [t.keys for t in held(0, 0)] == [t.keys for t in held(0, 7)]
    assert [t.keys for t in train(0, 0)] != [t.keys for t in train(0, 7)]
    assert sum(held.counts) >= 8


def test_any_process_that_starts_anywhere_sees_the_same_batches(opened):
    stream = opened[0]

    def batches(source, rank=0, world=1):
        return Batches(Schedule(source.counts, 0), source, 4, 0, 2, BatchLayout(9, 5, True, 33), rank=rank, world=world)

    whole = [batches(stream)[number].images for number in range(6)]
    parts = [batches(pickle.loads(pickle.dumps(stream)), rank, 2) for rank in (0, 1)]
    for number in reversed(range(6)):
        rows = [part[number].images for part in parts]
        assert [row for pair in zip(*rows, strict=True) for row in pair] == whole[number]


def test_other_formats_become_jpegs(tmp_path, opened):
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 4), (200, 0, 0)).save(path)
    dataset, _ = opened[0].source.open()
    data = labelled._jpeg(dataclasses.replace(dataset, path=lambda name: path), "a")
    assert Image.open(io.BytesIO(data)).format == "JPEG"


def test_all_folds_at_once_are_refused(photos):
    with pytest.raises(ValueError, match=r"fold: .* train\.tasks=labelled.*got all; set fold=0"):
        load(["experiment=tiny", "train.tasks=labelled", f"dataset.root={photos}"])
    with pytest.raises(ValueError, match=r"train\.ratio: expected a share in \(0, 1\], got 0"):
        load(["experiment=tiny", "train.ratio=0"])
    with pytest.raises(
        ValueError,
        match=r"augment\.crop: expected a share in \(0, 1\].*\n.*flip: expected a number from 0 to 1, got 2\.0",
    ):
        load(["experiment=tiny", "train.views=4", "train.augment.flip=2", "train.augment.crop=0"])


def test_what_shapes_the_result_and_what_does_not(configure, start, tmp_path, photos, run):
    def fingerprint(*overrides):
        return start(configure(tmp_path, *OPTIONS, *overrides)).identity("train")[2]

    first = run.identity("train")[2]
    others = ["train.ratio=0.5", "fold=1", "pair.shots=2", "dataset.min_area=31", "train.images=ImageSets/train.txt"]
    assert len({first, *(fingerprint(other) for other in others)}) == len(others) + 1
    assert fingerprint("pair.nearest=0.9", "source.clusters=7", "dataset.list=ImageSets/val.txt") == first
    (tmp_path / "same.txt").write_text((photos / "ImageSets/val.txt").read_text())
    assert fingerprint(f"train.images={tmp_path}/same.txt") == first
    assert run.order("train") == ["train"]


def test_fresh_views_are_decoded_ahead_and_give_the_same_training(configure, start, tmp_path):
    """By a thread and by two processes; the wait for data is journaled."""
    weights, waits = [], []
    for workers in (0, 2):
        fresh = (*OPTIONS, "train.features=fresh", f"train.loader_workers={workers}", "train.log_every=1")
        run = start(configure(tmp_path / str(workers), *fresh))
        manifest = run.ensure("train")
        weights.append((manifest.folder / "model/model.safetensors").read_bytes())
        events, _ = read_events(run.tracking_folder / f"{run.journal_name('train')}.jsonl")
        waits.append([e["values"]["train/data_wait_share"] for e in events if "train/data_wait_share" in str(e)])
    assert weights[0] == weights[1]
    assert all(len(found) == 4 and 0 <= min(found) <= max(found) < 1 for found in waits)


def test_training_writes_its_list_and_is_measured_on_its_own_fold_only(run, configure, start, tmp_path):
    manifest = run.ensure("train")
    assert run.fresh == ["train"]
    names = (manifest.folder / labelled.LIST).read_text().split()
    assert names == list(training.given(run.config).used())
    assert labelled.LIST in {file.path for file in manifest.files if isinstance(file, File)}
    facts = json.loads((manifest.folder / "model/model.json").read_text())["facts"]
    assert (facts["labelled"], facts["fold"], len(facts["classes"])) == (True, 0, 15)
    assert facts["selection"]["by"] == "holdout"
    model = (f"model.path={manifest.folder}/model", "model.name=trained", "dataset.min_area=30")
    found = start(configure(tmp_path, *model, "shots=1", "episodes=4")).ensure("evaluate")
    assert found.counts["episodes"] == 4
    with pytest.raises(ValueError, match=r"not trained on with labels, got .*: set fold=0"):
        start(configure(tmp_path, *model, "shots=1", "episodes=4", "fold=1")).ensure("evaluate")
    about = json.loads((manifest.folder / "model/model.json").read_text())
    about["facts"] |= {"labelled": "names", "fold": "all"}  # of a table of names, for no fold in particular
    shutil.copytree(manifest.folder / "model", tmp_path / "model")
    (tmp_path / "model/model.json").write_text(json.dumps(seals.sealed(about)))
    model = (f"model.path={tmp_path}/model", *model[1:])
    with pytest.raises(ValueError, match=r"no fold was kept from it: leave the names .* out of source\.names"):
        start(configure(tmp_path, *model, "shots=1", "episodes=4", "fold=1")).ensure("evaluate")
