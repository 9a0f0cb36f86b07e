"""Sources that do not cluster: which stages are run, label maps whoever makes them, tasks across images, errors."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.config_check import check
from cluster.planning import calibrate, forecast, plan
from cluster.report import summary
from cluster.stage import StageError, read_file
from cluster.stages import STAGES
from fss import shards, tasks
from fss.imaging import images
from jobs._config import load


@pytest.fixture(scope="module")
def salient(configure, start, tmp_path_factory):
    """Tasks across images of the classes' masks of the rendered photos."""
    folder = configure("runs").dataset.root
    source = ["source=saliency", f"source.maps={folder}/SegmentationClass", "source.maps_kind=classes"]
    run = start(configure(tmp_path_factory.mktemp("runs"), *source, "pair.max_area=0.9", "pair.max_border=1"))
    run.ensure("pair")
    return run


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


def test_the_backbones_own_maps_whoever_makes_them(configure, start, tmp_path):
    found = []
    for workers in (1, 2):
        run = start(configure(tmp_path / f"{workers}", "source=saliency"), workers)
        found.append([file.sha256 for file in run.ensure("label").files])
        assert run.manifest("label").counts["regions"] > 30  # of 36 images
    assert found[0] == found[1]


@pytest.mark.parametrize("stage", ["sample", "kmeans", "quality"])
def test_stages_about_clusters_say_why_they_cannot_run(configure, start, tmp_path, stage):
    with pytest.raises(ValueError, match=rf"{stage}: expected a source with clusters, .*clusters, got saliency"):
        start(configure(tmp_path, "source=saliency")).ensure(stage)


def test_wrong_maps(configure, start, tmp_path):
    with pytest.raises(ValueError, match="expected a folder of maps"):
        start(configure(tmp_path, "source=saliency", "source.maps=nowhere")).ensure("label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"found nothing in any of 36 images; check source\.maps"):
        start(configure(tmp_path, "source=saliency", f"source.maps={tmp_path}/empty")).ensure("label")
    for key, said in (
        ("name=salienci", "source.name: expected one of clusters, saliency"),
        ("maps_kind=x", "maps_kind"),
    ):
        with pytest.raises(ValueError, match=said):
            check(load(["experiment=tiny", "source=saliency", f"source.{key}"]))


def test_the_plan_has_no_step_of_clusters(configure, tmp_path):
    config = configure(tmp_path, "source=saliency", "plan.images=24", "plan.corpus_size=1000", "train.tasks=stream")
    measured = calibrate.calibrate(config, STAGES)
    rows = forecast.predict(config, measured, plan.Machines(4))
    assert [one.stage for one in rows] == ["shard", "shard", "shard", "label", "train"]
    assert any("clusters nothing" in note for note in forecast.notes(config, rows, plan.Machines(4)))
