"""SST, which takes gradients inside of its forward pass, where others do not: trainer, ZeRO-3, evaluator, segmenter."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from cluster.tracking.journal import read_events
from cluster.train import stage
from fss.datasets import open_dataset
from fss.evaluation import running
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.episodes import Episode, Way
from fss.segmenter import Segmenter
from tests.cluster import processes
from tests.cluster.train.recipes import varied

OPTIONS = {"dim": 8, "order": "second", "step": 1.0}


def trained(tiny_run, folder, workers, **how):
    """The tiny run's training with SST for 4 steps, and the losses of each, with those on held-out tasks."""
    folder.mkdir()
    job = stage.job(tiny_run.work("train"))
    recipe = varied(job.recipe, {"name": "sst", "options": OPTIONS})
    job = dataclasses.replace(job, recipe=recipe, folder=folder / "train", tracking=folder / "tracking", steps=4)
    job = dataclasses.replace(job, log_every=1, validate_every=2, checkpoint_every=4, **how)
    cluster = dataclasses.replace(tiny_run.config.cluster, train_workers=workers)
    processes.train(job, cluster, max_failures=0)
    events, _ = read_events(job.tracking / f"{job.journal}.jsonl")
    kinds = ("loss", "loss_self", "holdout_loss", "holdout_self_iou", "holdout_step_length")
    values = [event["values"] for event in events if event["kind"] == "metrics"]
    return job.folder / "model", {kind: [v[f"train/{kind}"] for v in values if f"train/{kind}" in v] for kind in kinds}


@pytest.fixture(scope="module")
def one(tiny_run, tmp_path_factory):
    """One worker, ZeRO-1."""
    return trained(tiny_run, tmp_path_factory.mktemp("sst") / "one", 1)


def test_two_workers_under_zero_3_in_parts_learn_as_one(one, tiny_run, tmp_path):
    """What ZeRO-3 parts is whole again where the inner gradient is taken, in training and in validation."""
    _, parted = trained(tiny_run, tmp_path / "parted", 2, zero_stage=3, accumulate=2)
    _, alone = one
    assert {kind: len(values) for kind, values in alone.items()} == {
        "loss": 4, "loss_self": 4, "holdout_loss": 3, "holdout_self_iou": 3, "holdout_step_length": 3
    }  # fmt: skip
    for kind in ("loss", "loss_self", "holdout_loss"):
        np.testing.assert_allclose(parted[kind], alone[kind], rtol=1e-3, err_msg=kind)
    assert min(alone["holdout_step_length"]) > 0


def test_what_is_exported_segments_and_is_measured_from_kept_features(one, photos, tmp_path):
    """The predictions of the segmenter and of the evaluator, each in inference mode, are the same."""
    segmenter = Segmenter.load(one[0], device="cpu")
    dataset = open_dataset("scenes", str(photos))
    query, support = dataset.names[:2]
    class_id = int(np.bincount(dataset.mask(support)[dataset.mask(support) < 255].ravel())[1:].argmax()) + 1
    store = FeatureStore(tmp_path, 1 << 30)
    photo = running.Photos(dataset, segmenter.extractor, store, Memory(1 << 26))
    episodes = [Episode(0, query, (Way(class_id, (support,)),))]
    for _ in range(2):  # computed, then kept
        (result,) = running.run(segmenter.head, photo, episodes, side=64)
    mask = (dataset.mask(support) == class_id).astype(np.uint8)
    image = dataset.image(query)
    assert isinstance(image, Image.Image)
    found = segmenter.segment(image, [dataset.image(support)], [mask])
    assert (found == result.prediction).mean() > 0.99  # features are kept in half precision
