"""From image files to pseudo-tasks: the same bytes by one process, 2 workers and after a kill; no input lost."""

import functools
import io
import json
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.engine.session import ROOT
from cluster.engine.stage import StageError, read_file
from cluster.label.sources.clusters import read_clusters
from fss import rng, shards
from fss.clustering import kmeans
from fss.imaging import images
from fss.labelling import pseudo
from fss.tasks import task as tasks

SHARD_STAGES = ("shard", "sample", "kmeans", "label", "pair")


def files(run, stage):
    return {file.path: (file.sha256, file.count) for file in run.manifest(stage).files}


def ledger(manifest):
    return [row for file in manifest.named(".ledger.parquet") for row in _rows(manifest, file)]


def _rows(manifest, file):
    return pq.read_table(io.BytesIO(read_file(manifest.folder, file))).to_pylist()


def samples(manifest):
    return [sample for file in manifest.named(".tar") for sample in shards.unpack(read_file(manifest.folder, file))]


# The same result whoever computed it


@pytest.fixture(scope="module")
def by_two_workers(configure, start, pools, tmp_path_factory):
    run = start(configure(tmp_path_factory.mktemp("two")), pools[2])
    run.ensure("pair")
    return run


@pytest.mark.parametrize("stage", SHARD_STAGES)
def test_this_process_and_two_workers_make_the_same_bytes(tiny_run, by_two_workers, stage):
    assert files(tiny_run, stage) == files(by_two_workers, stage)
    one, two = (run.manifest(stage).folder / "manifest.json" for run in (tiny_run, by_two_workers))
    assert one.read_bytes() == two.read_bytes()


def test_every_configuration_key_of_a_stage_moves_its_folder(tiny_run, configure, start, tmp_path):
    changes = {
        "shard": ("corpus.longer_side=64", "corpus.shard_size=20", "corpus.min_side=40"),
        "sample": ("backbone.size=64", "source.levels=[high]", "source.granularities=[3]"),
        "kmeans": (
            "source.clusters=5",
            "source.iterations=4",
            "source.init=random",
            "source.spherical=false",
            "source.restarts=2",
            "source.tolerance=0.1",
            "source.hierarchy=[60]",
        ),
        "pair": ("pair.nearest=0.9", "pair.tasks_per_image=2", "pair.min_area=0.05", "pair.layers=[1]"),
    }
    for stage, overrides in changes.items():
        for override in overrides:
            changed = start(configure(tmp_path, override))
            assert changed.identity(stage)[2] != tiny_run.identity(stage)[2], override
            assert changed.identity("train")[2] != tiny_run.identity("train")[2], override
    machines = start(configure(tmp_path, "cluster.workers=7", "cluster.train_workers=2", "cluster.memory_gib=1"))
    for stage in (*SHARD_STAGES, "train"):
        assert machines.identity(stage)[2] == tiny_run.identity(stage)[2]


def test_distributed_kmeans_is_kmeans(tiny_run):
    """The parts by hand in this process, and `fss.clustering.kmeans.fit` on all points at once."""
    config, sample = tiny_run.config, tiny_run.manifest("sample")
    parts = [np.load(io.BytesIO(read_file(sample.folder, file))) for file in sample.named(".npy")]
    found = read_clusters(tiny_run.manifest("kmeans"))
    points = np.concatenate(parts)
    np.testing.assert_allclose(found.centre, points.mean(axis=0, dtype=np.float64), atol=1e-6)
    centre = np.float32(sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(points))
    rows = [pseudo.centred(part, centre) for part in parts]
    start = kmeans.initial_centroids(np.concatenate(rows), config.source.clusters, seed=config.seed)

    def step(centroids, iteration):
        sums = kmeans.add([kmeans.partial_sums(part, centroids) for part in rows])
        return kmeans.step(sums, centroids, seed=rng.mix(config.seed, iteration), spherical=True)

    iterations = tiny_run.manifest("kmeans").counts["iterations"]
    np.testing.assert_array_equal(found.centroids, functools.reduce(step, range(iterations), start))
    whole, history = kmeans.fit(
        np.concatenate(rows), config.source.clusters, seed=config.seed, iterations=iterations, spherical=True
    )
    np.testing.assert_allclose(found.centroids, whole, atol=1e-6)
    report = json.loads(tiny_run.manifest("kmeans").path("report.json").read_text())
    np.testing.assert_allclose(report["inertia"], history, rtol=1e-6)
    assert sum(report["sizes"]) == report["points"] == len(points)


# What the stages hold


def test_shards_hold_the_photos(tiny_run, photos):
    manifest = tiny_run.manifest("shard")
    originals = {shards.sha256(p.read_bytes()): p.read_bytes() for p in (photos / "JPEGImages").iterdir()}
    found = {json.loads(m["json"])["sha256"]: m["jpg"] for _, m in samples(manifest)}
    assert found == originals  # small upright JPEGs keep their bytes
    assert manifest.counts == {"inputs": 36, "accepted": 36, "rejected": 0, "duplicate": 0}


@pytest.mark.parametrize(("stage", "members"), [("shard", {"jpg", "json"}), ("label", {"0.png", "1.png"})])
def test_shards_are_readable_with_webdataset(tiny_run, stage, members):
    import webdataset

    manifest = tiny_run.manifest(stage)
    urls = [str(manifest.folder / file.path) for file in manifest.named(".tar")]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [key for key, _ in samples(manifest)]
    assert all(members <= set(sample) for sample in read)
    assert all(len(sample["__key__"]) == 24 for sample in read)


def test_labels_belong_to_their_images(tiny_run):
    corpus, labels = (samples(tiny_run.manifest(stage)) for stage in ("shard", "label"))
    assert [key for key, _ in corpus] == [key for key, _ in labels]
    for (_, picture), (_, maps) in zip(corpus, labels, strict=True):
        width, height = Image.open(io.BytesIO(picture["jpg"])).size
        for layer in ("0.png", "1.png"):
            values = images.decode_labels(maps[layer])
            assert values.shape == (height, width)
            assert values.max() < tiny_run.config.source.clusters
    regions = [r for f in tiny_run.manifest("label").named(".parquet") for r in _rows(tiny_run.manifest("label"), f)]
    assert len(regions) == tiny_run.manifest("label").counts["regions"]
    by_key = dict(labels)
    for region in regions[:20]:
        values = images.decode_labels(by_key[region["key"]][f"{region['layer']}.png"])
        assert abs((values == region["label"]).mean() - region["area"]) < 0.1  # counted on the coarser grid
        assert abs(np.linalg.norm(np.array(region["descriptor"], np.float32)) - 1) < 1e-2


def test_tasks_are_made_of_their_images_labels(tiny_run):
    manifest = tiny_run.manifest("pair")
    by_key = dict(samples(tiny_run.manifest("label")))
    pictures = dict(samples(tiny_run.manifest("shard")))
    every = samples(manifest)
    assert len(every) == manifest.counts["tasks"] > 0
    for sample in every:
        about, task = json.loads(sample[1]["json"]), tasks.decode(sample)
        assert len(set(task.keys)) == 2  # the support is another image
        for key, jpeg, mask, layer in zip(task.keys, task.jpegs, task.masks, about["layers"], strict=True):
            assert jpeg == pictures[key]["jpg"]
            labels = images.decode_labels(by_key[key][f"{layer}.png"])
            np.testing.assert_array_equal(images.decode_labels(mask), labels == about["cluster"])
    held = {json.loads(m["json"])["query"] for f in manifest.named(".tar") if f.path.startswith("holdout")
            for _, m in shards.unpack(read_file(manifest.folder, f))}  # fmt: skip
    trained = {json.loads(m["json"])["query"] for f in manifest.named(".tar") if f.path.startswith("tasks")
               for _, m in shards.unpack(read_file(manifest.folder, f))}  # fmt: skip
    assert not held & trained


def test_the_manifest_and_the_usage_tables_tell_the_same(tiny_run):
    manifest = tiny_run.manifest("pair")
    rows = [row for file in manifest.named(".parquet") for row in _rows(manifest, file)]
    by = {kind: [row for row in rows if row["kind"] == kind] for kind in ("image", "cluster", "pair")}
    counts, abouts = manifest.counts, [json.loads(members["json"]) for _, members in samples(manifest)]
    clusters = Counter()
    for row in by["cluster"]:
        clusters[row["name"]] += row["tasks"]
    assert clusters == Counter(str(about["cluster"]) for about in abouts)
    assert counts["used_clusters"] == len(clusters)
    assert [counts[f"cluster_tasks_{n}"] for n in ("min", "max")] == [min(clusters.values()), max(clusters.values())]
    images_used = Counter(key for about in abouts for key in (about["query"], *about["supports"]))
    assert {row["name"]: row["tasks"] + row["supports"] for row in by["image"]} == images_used
    assert counts["image_uses_max"] == max(images_used.values())
    assert (counts["used_images"], counts["image_uses"]) == (len(images_used), sum(images_used.values()))
    assert sum(row["tasks"] for row in by["pair"]) == counts["tasks"]
    assert (counts["used_pairs"], counts["pair_uses_max"]) == (len(by["pair"]), max(r["tasks"] for r in by["pair"]))


# Every input is accounted for


@pytest.fixture(scope="module")
def messy(photos, tmp_path_factory):
    """A folder of 12 good images and what users' folders also hold, with what should become of each."""
    folder = tmp_path_factory.mktemp("messy")
    good = sorted((photos / "JPEGImages").iterdir())[:12]
    expected = {}

    def put(name, data, status, reason=""):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        expected[name] = (status, reason)

    for path in good:
        put(path.name, path.read_bytes(), "accepted")
    put("again/copy.jpg", good[0].read_bytes(), "duplicate", "000000.jpg")
    put("again/third.png", good[0].read_bytes(), "duplicate", "000000.jpg")
    put("cut.jpg", good[1].read_bytes()[:700], "rejected", "truncated")
    put("empty.jpg", b"", "rejected", "empty")
    put("page.jpg", b"<html>404</html>" * 9, "rejected", "unsupported: a web page, not an image")
    put("tiny.png", _png(8, 90), "rejected", "too_small: 8x90 has a side under 32 pixels (corpus.min_side)")
    put("huge.png", _png(400, 300), "rejected", "too_large")
    put("ünï cödé.png", _png(40, 50), "accepted")
    return folder, expected


def _png(width, height):
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return images.encode_png(pixels)


def test_the_ledger_adds_up_and_names_the_reasons(messy, configure, start, tmp_path):
    folder, expected = messy
    run = start(configure(tmp_path, f"corpus.root={folder}", "corpus.max_pixels=100000"))
    manifest = run.ensure("shard")
    rows = ledger(manifest)
    assert {row["path"]: row["status"] for row in rows} == {name: status for name, (status, _) in expected.items()}
    for row in rows:
        assert row["reason"].startswith(expected[row["path"]][1]), row
        assert bool(row["reason"]) == (row["status"] != "accepted")
    counts = Counter(status for status, _ in expected.values())
    assert manifest.counts == {"inputs": len(expected), **counts}
    assert counts["accepted"] + counts["rejected"] + counts["duplicate"] == len(expected) == len(rows)
    assert len(samples(manifest)) == counts["accepted"] == sum(f.count for f in manifest.named(".tar"))
    assert {row["key"] for row in rows if row["status"] == "accepted"} == {key for key, _ in samples(manifest)}


def test_a_list_with_missing_entries_is_accounted_for(messy, configure, start, tmp_path):
    folder, _ = messy
    listing = tmp_path / "list.txt"
    listing.write_text("000000\n000001.jpg\nabsent\nagain/copy.jpg\n")
    run = start(configure(tmp_path, f"corpus.root={folder}", f"corpus.list={listing}"))
    rows = {row["path"]: row for row in ledger(run.ensure("shard"))}
    assert {path: row["status"] for path, row in rows.items()} == {
        "000000.jpg": "accepted",
        "000001.jpg": "accepted",
        "absent": "rejected",
        "again/copy.jpg": "duplicate",
    }
    assert rows["absent"]["reason"] == "missing: the list names it, but it is not there"
    assert rows["again/copy.jpg"]["reason"] == "000000.jpg"


def test_a_folder_without_any_usable_image_is_refused(configure, start, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"not an image %d" % number)
    run = start(configure(tmp_path, f"corpus.root={folder}"))
    with pytest.raises(StageError, match=r"none of 3 inputs could be used \(\w+\.jpg: \w+.*; all of them stand in"):
        run.ensure("shard")
    with pytest.raises(ValueError, match=r"give it as corpus.root=FOLDER"):
        start(configure(tmp_path, "corpus.root=null")).ensure("shard")


def test_more_clusters_than_points_is_refused(configure, start, tiny_run):
    run = start(configure(tiny_run.config.root, "source.clusters=5000"))
    with pytest.raises(ValueError, match=r"as many points as clusters, got \d+ points for 5000 clusters; lower source"):
        run.ensure("kmeans")


# Interruptions


def test_damage_in_any_file_is_made_good_with_the_same_bytes(copied, tiny_run):
    folder = copied.folder / "label" / tiny_run.identity("label")[2]
    (folder / "labels-000001.tar").unlink()
    (folder / ".units" / "part-000002.json").unlink()
    (folder / "manifest.json").unlink()
    copied.ensure("pair")
    assert copied.fresh == ["label"]
    assert files(copied, "label") == files(tiny_run, "label")


_KILLED = """
import os, sys
from cluster.engine.run import Run
from cluster.stages import STAGES
from jobs._config import load
from tests.cluster.here import Here
class Dies(Here):
    def map(self, function, units):
        for index, unit in enumerate(units):
            if index == 1:
                os.kill(os.getpid(), 9)
            yield index, function(unit)
run = Run(load(sys.argv[1:]), STAGES)
run.__dict__["pool"] = Dies()
run.ensure("label")
"""


def test_a_driver_killed_during_label_leaves_what_it_had_done(copied, tiny_run, photos):
    import shutil

    folder = copied.folder / "label" / tiny_run.identity("label")[2]
    shutil.rmtree(folder)
    config = copied.config
    overrides = ["experiment=tiny", "backbone.weights=random", "corpus=folder", f"corpus.root={photos}/JPEGImages"]
    overrides += ["corpus.shard_size=12", "tracking.enabled=false", f"root={config.root}"]
    done = subprocess.run([sys.executable, "-c", _KILLED, *overrides], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in (folder / ".units").iterdir()} == {"part-000000.json"}
    assert not (folder / "manifest.json").exists()
    before = (folder / "labels-000000.tar").stat().st_mtime_ns
    copied.ensure("label")
    assert files(copied, "label") == files(tiny_run, "label")
    assert (folder / "labels-000000.tar").stat().st_mtime_ns == before
