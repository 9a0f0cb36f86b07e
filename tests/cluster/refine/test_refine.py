"""Masks refined in groups of shards: whoever makes them, in label's format, paired in label's stead; errors."""

import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.engine.stage import StageError, read_file
from cluster.label import kept
from cluster.pair.groups import Members, groups, read_regions
from cluster.refine.stage import Fields
from cluster.report import summary
from cluster.train.tasks.stream import Streams
from fss import shards
from fss.imaging import images
from jobs._config import load
from tests.cluster.here import Here

#: Random weights see little: gates that let something through.
LOOSE = ("refine=consensus", "refine.max_area=0.9", "refine.max_border=0.9", "refine.clusters=3", "refine.dims=64")
PAIR = ("pair.max_area=0.9", "pair.max_border=1", "pair.empty_lines=0", "pair.min_area=0.01")


@pytest.fixture(scope="module")
def refined(configure, start, tmp_path_factory):
    """The tiny run with refined masks, up to its tasks: groups of two shards and of one."""
    run = start(configure(tmp_path_factory.mktemp("refined"), *LOOSE, *PAIR))
    run.ensure("pair")
    return run


def files(run, stage):
    return {file.path: (file.sha256, file.count) for file in run.manifest(stage).files}


def samples(manifest):
    return [sample for file in manifest.named(".tar") for sample in shards.unpack(read_file(manifest.folder, file))]


def tables(manifest):
    return [read_regions(manifest.folder, [file]) for file in manifest.named(".regions.parquet")]


def test_it_stands_between_label_and_pair(refined, tiny_run):
    assert refined.order("pair")[-3:] == ["label", "refine", "pair"]
    assert set(refined.manifest("pair").inputs) == {"shard", "refine"}
    assert "refine" not in tiny_run.order("pair")
    assert all(kept.FIELDS not in file.path for file in tiny_run.manifest("label").files)


def test_this_process_and_two_workers_make_the_same_bytes(refined, configure, start, pools, tmp_path):
    shared = start(configure(tmp_path, *LOOSE, *PAIR), pools[2])
    shared.ensure("pair")
    for stage in ("label", "refine", "pair"):
        assert files(shared, stage) == files(refined, stage), stage


def test_label_maps_are_as_labels_are(refined):
    """Every image has its layers in its own size; regions say what is in them, as wide as label's."""
    corpus, labels, found = (refined.manifest(stage) for stage in ("shard", "label", "refine"))
    assert [file.count for file in found.named(".tar")] == [file.count for file in labels.named(".tar")]
    masks = 0
    pictures, regions = samples(corpus), {}
    for table in tables(found):
        for row in range(len(table)):
            regions.setdefault(str(table.key[row]), set()).add((int(table.layer[row]), int(table.label[row])))
        assert table.descriptor.shape[1] in (1, tables(labels)[0].descriptor.shape[1])
        np.testing.assert_allclose(np.linalg.norm(table.descriptor, axis=1), 1, atol=0.02)
        assert (table.label >= 1).all()
        assert ((table.layer == 0) == (table.label <= 3)).all()  # refine.clusters of masks, then those of segments
    for (key, members), (same, maps) in zip(pictures, samples(found), strict=True):
        assert key == same
        assert list(maps) == [f"{number}.png" for number in range(1 + len(refined.config.refine.granularities))]
        layers = [images.decode_labels(png) for png in maps.values()]
        width, height = images.upright_size(members["jpg"])
        assert {layer.shape for layer in layers} == {(height, width)}
        assert len(set(np.unique(layers[0])) - {0}) <= 1
        named = {(number, int(label)) for number, layer in enumerate(layers) for label in np.unique(layer) if label}
        assert named >= {(0, label) for layer, label in regions.get(key, ()) if layer == 0}
        masks += layers[0].any()
    assert masks == found.counts["masks"] > 9
    assert found.counts["regions"] == sum(file.count for file in found.named(".regions.parquet"))


def test_descriptors_are_in_the_space_of_labels(refined):
    """A mask is described as label describes the same pixels, but for the directions that were left out."""
    along = np.load(refined.manifest("label").path(kept.DIRECTIONS))
    assert along.shape[1] == 64
    for table in tables(refined.manifest("refine")):
        if len(table):
            np.testing.assert_allclose(table.descriptor @ along @ along.T, table.descriptor, atol=2e-3)


def test_tasks_are_of_refined_masks(refined):
    maps = dict(samples(refined.manifest("refine")))
    tasks = samples(refined.manifest("pair"))
    assert len(tasks) == refined.manifest("pair").counts["tasks"] > 5
    for _, members in tasks:
        about = json.loads(members["json"])
        labels = images.decode_labels(maps[about["query"]][f"{about['layers'][0]}.png"])
        np.testing.assert_array_equal(images.decode_labels(members["query.png"]), labels == about["cluster"])


@pytest.mark.parametrize("share", [0, 1])
def test_the_share_of_segments_inside_of_masks(refined, configure, start, share):
    run = start(configure(refined.config.root, *LOOSE, *PAIR, f"pair.inside={share}", "refine.inside=0.3"))
    run.ensure("pair")
    drawn = [json.loads(members["json"])["layers"][0] > 0 for _, members in samples(run.manifest("pair"))]
    assert len(drawn) > 5
    assert sum(drawn) > 0.8 * len(drawn) if share else sum(drawn) < 0.2 * len(drawn)


def test_streamed_tasks_are_of_refined_masks_too(refined, configure, start):
    run = start(configure(refined.config.root, *LOOSE, *PAIR, "train.tasks=stream"))
    assert run.order("train") == ["shard", "sample", "kmeans", "label", "refine", "train"]
    corpus, labels, rules = run.ensure("shard"), run.ensure("refine"), run.config.pair
    assert run.fresh == []
    streams = Streams(corpus.folder, labels.folder, tuple(groups(corpus, labels, rules.group_shards)), rules, seed=0)
    train, held = streams.open(Here())
    assert sum(train.counts) + sum(held.counts) > 5
    number = next(place for place, count in enumerate(train.counts) if count)
    maps = Members(labels.folder, labels.named(".tar"))
    task = train(number, 0)[0]
    values = images.decode_labels(maps[f"{task.keys[0]}.0.png"])
    assert images.decode_labels(task.masks[0]).shape == values.shape


def test_what_is_missing_or_damaged_is_made_again_with_the_same_bytes(refined, configure, start, pools, tmp_path):
    import shutil

    shutil.copytree(refined.folder, tmp_path / refined.config.name)
    run = start(configure(tmp_path, *LOOSE, *PAIR))
    folder = run.folder / "refine" / refined.identity("refine")[2]
    (folder / "labels-000002.tar").unlink()
    (folder / "manifest.json").unlink()
    embeddings = run.folder / "label" / refined.identity("label")[2] / "labels-000002.fields.npy"
    embeddings.write_bytes(embeddings.read_bytes()[:-1] + b"\x05")
    before = (folder / "labels-000000.tar").stat().st_mtime_ns
    run.ensure("pair")
    assert run.fresh == ["refine", "label"]
    for stage in ("label", "refine"):
        assert files(run, stage) == files(refined, stage)
    assert (folder / "labels-000000.tar").stat().st_mtime_ns == before


def test_from_photos_to_a_measured_model_without_clusters(configure, start, tmp_path):
    """What is clustered for label is not looked at: source=saliency does without."""
    run = start(configure(tmp_path, "source=saliency", *LOOSE, *PAIR, "episodes=4", "shots=1", "train.steps=2"))
    assert summary.stages(run) == ["shard", "label", "refine", "quality", "pair", "train", "evaluate"]
    measured = json.loads(run.ensure("evaluate").path("metrics.json").read_text())
    assert list(measured["models"])[-1].startswith("umtfss, meta-trained")


def test_fields_are_decoded_one_by_one():
    arrays = [np.full((2, 3, 3, 4), 1, np.int8), np.full((1, 3, 3, 4), -1, np.int8), np.zeros((0, 1, 1, 1), np.int8)]
    found = Fields(arrays)
    assert len(found) == 3
    assert [float(field[0, 0, 0]) for field in found] == [0.5, 0.5, -0.5]


def test_it_says_why_it_cannot_run(configure, start, tmp_path):
    with pytest.raises(ValueError, match=r"got refine.name=none; set refine=consensus"):
        start(configure(tmp_path)).ensure("refine")
    with pytest.raises(ValueError, match=r"refine.rounds: expected it unset with refine.name=none"):
        load(["experiment=tiny", "refine.rounds=1"])


def test_gates_that_let_nothing_through(refined, configure, start):
    run = start(configure(refined.config.root, *LOOSE[:1], *LOOSE[3:], "refine.max_area=0.001"))
    with pytest.raises(StageError, match=r"refine: no mask was left of 36 images; raise refine.max_area"):
        run.ensure("refine")


def test_the_report_on_regions_is_of_refined_masks(refined, configure, start, photos):
    """Counted by hand: one label of two groups is two clusters, and what is nothing is none."""
    run = start(configure(refined.config.root, *LOOSE, *PAIR, f"quality.masks={photos}/SegmentationClass"))
    report = run.ensure("quality")
    assert set(report.inputs) == {"shard", "refine"}
    assert run.fresh == ["quality"]
    named = [
        (number // run.config.pair.group_shards, int(label))
        for number, table in enumerate(tables(run.manifest("refine")))
        for label in table.label
    ]
    rows = pq.read_table(io.BytesIO(report.path("clusters.parquet").read_bytes())).to_pylist()
    assert sorted(row["regions"] for row in rows if row["regions"]) == sorted(Counter(named).values())
    assert sum(row["regions"] for row in rows) == report.counts["regions"] == run.manifest("refine").counts["regions"]
    figures = json.loads(report.path("quality.json").read_text())
    assert figures["clusters"]["number"] == len(rows)
    assert figures["tasks"]["regions"] == refined.manifest("pair").counts["usable"]
    assert 0 < figures["tasks"]["object"] <= 1
    assert report.named(".jpg")
