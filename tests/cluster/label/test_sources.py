"""Sources that do not cluster: which stages are run, label maps whoever makes them, tasks across images, errors."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.engine.stage import StageError, read_file
from cluster.pair.groups import groups
from cluster.planning import calibrate, forecast, plan
from cluster.report import summary
from cluster.stages import STAGES
from cluster.train.tasks.stream import Streams
from fss import shards
from fss.imaging import images
from fss.keys import problems
from fss.tasks import task as tasks
from jobs._config import load
from tests.cluster.here import Here


@pytest.fixture(scope="module")
def labelled(configure, start, tmp_path_factory):
    """A function (*overrides) -> Run whose labels are the classes' masks of the rendered photos."""
    folder, root = configure("runs").dataset.root, tmp_path_factory.mktemp("runs")
    source = ["source=saliency", f"source.maps={folder}/SegmentationClass", "source.maps_kind=classes"]
    return lambda *more: start(configure(root, *source, "pair.max_area=0.9", "pair.max_border=1", *more))


@pytest.fixture(scope="module")
def salient(labelled):
    """Tasks across images."""
    run = labelled()
    run.ensure("pair")
    return run


def pair_tasks(run):
    """Every task of the pair stage, decoded, with its masks as arrays."""
    pair = run.manifest("pair")
    files = [file for file in pair.named(".tar") if file.count]
    found = [tasks.decode(sample) for file in files for sample in shards.unpack(read_file(pair.folder, file))]
    return [(task, [images.decode_labels(mask) for mask in task.masks]) for task in found]


def test_nothing_is_clustered(salient):
    assert salient.order("pair") == ["shard", "label", "pair"]
    assert summary.stages(salient) == ["shard", "label", "pair", "train", "evaluate"]
    assert set(salient.manifest("label").inputs) == {"shard"}


def test_labels_are_the_users_masks(salient):
    corpus, labels, masks = salient.manifest("shard"), salient.manifest("label"), 0
    for pictures, file in zip(corpus.named(".tar"), labels.named(".tar"), strict=True):
        about = [members["json"] for _, members in shards.unpack(read_file(corpus.folder, pictures))]
        for text, (_, maps) in zip(about, shards.unpack(read_file(labels.folder, file)), strict=True):
            name = text.decode().split('"path":"')[1].split(".jpg")[0]
            path = f"{salient.config.source.maps}/{name}.png"
            with open(path, "rb") as handle:
                truth = images.decode_labels(handle.read())
            masks += 1
            assert list(maps) == ["0.png"]
            assert np.array_equal(images.decode_labels(maps["0.png"]) == 1, (truth > 0) & (truth != 255))
    assert masks == 36
    found = pq.read_table(labels.folder / labels.named(".regions.parquet")[0].path)
    assert set(found["label"].to_pylist()) == {1}


def test_what_is_salient_is_one_cluster_to_pairing(salient):
    pair = salient.manifest("pair")
    file = next(f for f in pair.named(".tar") if f.count)
    for sample in shards.unpack(read_file(pair.folder, file)):
        task = tasks.decode(sample)
        assert b'"cluster":1' in sample[1]["json"]
        assert len(set(task.keys)) == 2
        assert all(set(np.unique(images.decode_labels(mask))) == {0, 1} for mask in task.masks)


def test_the_backbones_own_maps_whoever_makes_them(configure, start, pools, tmp_path):
    found = []
    for pool in (None, pools[2]):
        run = start(configure(tmp_path / str(len(found)), "source=saliency"), pool)
        found.append([file.sha256 for file in run.ensure("label").files])
        assert run.manifest("label").counts["regions"] > 30  # of 36 images
    assert found[0] == found[1]


def test_the_halves_of_a_mask_are_support_and_query_of_one_image(labelled, salient):
    run = labelled("pair.pairing=mask_split", "pair.tasks_per_image=2", "pair.split.min_area=0.02")
    run.ensure("pair")
    assert run.manifest("label").fingerprint == salient.manifest("label").fingerprint
    truth = {task.keys[0]: masks[0] for task, masks in pair_tasks(salient)}
    found, counts = pair_tasks(run), run.manifest("pair").counts
    assert len(found) == counts["tasks"] > 30
    assert counts["rejected"] + counts["tasks"] == 2 * counts["used_images"] + counts["rejected"]
    for task, (query, support) in found:
        assert task.keys[0] == task.keys[1]
        assert task.jpegs[0] == task.jpegs[1]
        assert not ((query == 1) & (support == 1)).any()
        assert ((query == 255) >= (support == 1)).all()
        assert min((query == 1).mean(), (support == 1).mean()) >= 0.02
        if task.keys[0] in truth:
            assert np.array_equal(query != 0, truth[task.keys[0]] == 1)
    lines = {(task.keys[0], mask.tobytes()) for task, (mask, _) in found}
    assert len(lines) > 0.9 * len(found)


def test_streamed_halves_are_split_anew_in_every_epoch(labelled):
    run = labelled("pair.pairing=mask_split", "train.tasks=stream", "pair.tasks_per_image=1")
    for name in ("shard", "label"):
        run.ensure(name)
    corpus, labels, pair = run.manifest("shard"), run.manifest("label"), run.config.pair
    streams = Streams(corpus.folder, labels.folder, tuple(groups(corpus, labels, pair.group_shards)), pair, seed=0)
    train, held = streams.open(Here())
    assert sum(train.counts) + sum(held.counts) > 25
    first, again, later = train(0, 0)[:], train(0, 0)[:], train(0, 1)[:]
    assert first == again
    assert [task.keys for task in first] == [task.keys for task in later]
    assert sum(a.masks != b.masks for a, b in zip(first, later, strict=True)) > 0.8 * len(first)
    assert held(0, 0)[:] == held(0, 3)[:]


def test_masksplit_from_photos_to_its_own_metric(configure, start, tmp_path):
    """The preset on scenes: halves of what is salient to the backbone, streamed, in fresh views; model and metric."""
    small = ["model.options.dim=32", "train.steps=4", "train.batch=4", "train.candidates=2", "episodes=4"]
    config = configure(tmp_path, "source=saliency", "model=masksplit", "protocol=masksplit", *small)
    published = load(["experiment=masksplit", "corpus.root=photos"])
    config.pair, config.train.augment = published.pair, published.train.augment
    config.train.tasks, config.train.features = published.train.tasks, published.train.features
    config.seeds, config.shots = published.seeds, 1
    assert problems(config) == []
    run = start(config)
    assert run.order("evaluate") == ["shard", "label", "train", "evaluate"]
    run.ensure("evaluate")
    figures = json.loads((run.manifest("evaluate").folder / "metrics.json").read_text())
    assert list(figures["models"])[-1].startswith("masksplit, meta-trained")
    found = figures["models"][list(figures["models"])[-1]]["1"]["mean"]
    assert 0 <= found["model_resolution"]["miou_episode_mean"] <= 1
    assert figures["protocol"]["headline"] == "model_resolution.miou_episode_mean"


def test_what_cannot_be_split(labelled):
    for keys, said in (
        (["pair.distractors=1"], "pair.distractors: expected it unset with pair.pairing=mask_split"),
        (["pair.split.kind=diagonal"], "pair.split.kind: expected one of vertical, horizontal, mixed"),
        (["pair.split.slope=40"], r"pair.split.slope: expected a share in \[0, 1\], got 40"),
    ):
        with pytest.raises(ValueError, match=said):
            labelled("pair.pairing=mask_split", *keys)
    with pytest.raises(StageError, match="no tasks for training"):
        labelled("pair.pairing=mask_split", "pair.split.min_area=0.6").ensure("pair")


@pytest.mark.parametrize("stage", ["sample", "kmeans"])
def test_stages_about_clusters_say_why_they_cannot_run(configure, start, tmp_path, stage):
    with pytest.raises(ValueError, match=rf"{stage}: expected a source with clusters, .*clusters, got saliency"):
        start(configure(tmp_path, "source=saliency")).ensure(stage)


def test_regions_without_clusters_are_measured_by_their_labels(salient):
    """The user's masks are all objects: every usable region is one, whatever there was no k-means for."""
    run = salient
    figures = json.loads(run.ensure("quality").path("quality.json").read_text())
    assert run.manifest("quality").inputs.keys() == {"shard", "label"}
    assert (figures["clusters"]["number"], figures["clusters"]["empty"]) == (1, 0)
    assert figures["tasks"]["regions"] == run.manifest("pair").counts["usable"]
    assert figures["tasks"]["tasks"] == 1  # everything salient is one cluster


def test_wrong_maps(configure, start, tmp_path):
    with pytest.raises(ValueError, match="expected a folder of maps"):
        start(configure(tmp_path, "source=saliency", "source.maps=nowhere")).ensure("label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"found nothing in any of 36 images; check source\.maps"):
        start(configure(tmp_path, "source=saliency", f"source.maps={tmp_path}/empty")).ensure("label")
    for key, said in (
        ("name=salienci", "source.name: expected one of cam, clusters, mining, saliency"),
        ("maps_kind=x", "maps_kind"),
    ):
        with pytest.raises(ValueError, match=said):
            load(["experiment=tiny", "source=saliency", f"source.{key}"])


def test_the_plan_has_no_step_of_clusters(configure, tmp_path):
    config = configure(tmp_path, "source=saliency", "plan.images=24", "plan.corpus_size=1000", "train.tasks=stream")
    measured = calibrate.calibrate(config, STAGES)
    rows = forecast.predict(config, measured, plan.Machines(4))
    assert [one.stage for one in rows] == ["shard", "shard", "shard", "label", "train"]
    assert any("clusters nothing" in note for note in forecast.notes(config, measured, rows, plan.Machines(4)))
