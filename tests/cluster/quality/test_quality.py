"""The report on clusters: the same bytes for any number of workers, figures as plain loops find them, masks checked."""

import io
import json
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.engine.stage import read_file
from cluster.label.sources.clusters import read_clusters
from cluster.pair.groups import read_regions
from cluster.quality import text as quality_text
from cluster.quality.masks import ClassMasks
from cluster.quality.parts import ShardFigures
from cluster.report import page as report
from cluster.report import summary
from cluster.stages import STAGES
from fss import shards
from fss.datasets.parts import files
from fss.imaging import images
from fss.labelling import quality
from fss.tasks.pairing.parts import pairs

WITHOUT_MASKS = ("regions", "area", "border", "tasks", "likeness", "mutual")


@pytest.fixture(scope="module")
def measured(tiny_run, configure, start, photos):
    """The tiny run with the report on its clusters, masks included."""
    run = start(configure(tiny_run.config.root, f"quality.masks={photos}/SegmentationClass", "quality.regions=3"))
    run.ensure("quality")
    return run


def figures_of(run):
    return json.loads(run.manifest("quality").path("quality.json").read_text())


def samples(manifest):
    return [sample for file in manifest.named(".tar") for sample in shards.unpack(read_file(manifest.folder, file))]


def regions_of(run):
    label = run.manifest("label")
    return [
        (number, row)
        for number, file in enumerate(label.named(".regions.parquet"))
        for row in pq.read_table(io.BytesIO(read_file(label.folder, file))).to_pylist()
    ]


def test_this_process_and_two_workers_make_the_same_bytes(measured, start, pools, tmp_path):
    shared = start(measured.config, pools[2])
    for name in ("shard", "kmeans", "label"):
        shared.ensure(name)
    found, counts = STAGES["quality"].work(shared.work("quality", tmp_path))
    assert tuple(found) == measured.manifest("quality").files
    assert counts == measured.manifest("quality").counts


def test_clusters_are_those_of_the_label_stage(measured):
    rows = pq.read_table(measured.manifest("quality").path("clusters.parquet")).to_pylist()
    regions = [row for _, row in regions_of(measured)]
    assert [row["cluster"] for row in rows] == list(range(measured.config.source.clusters))
    for row in rows:
        mine = [region for region in regions if region["label"] == row["cluster"]]
        assert (row["regions"], row["images"]) == (len(mine), len({region["key"] for region in mine}))
        assert row["area"] == pytest.approx(np.mean([region["area"] for region in mine]) if mine else 0)
        assert row["border"] == pytest.approx(np.mean([region["border"] for region in mine]) if mine else 0)


def test_objects_and_classes_are_those_of_plain_loops(measured, photos):
    stems = {key: json.loads(members["json"])["path"][:-4] for key, members in samples(measured.manifest("shard"))}
    best, pixels = [], np.zeros((measured.config.source.clusters, 256), dtype=int)
    for key, maps in samples(measured.manifest("label")):
        mask = files.read_mask(photos / "SegmentationClass" / f"{stems[key]}.png")
        layers = [images.decode_labels(png) for png in maps.values()]
        for layer in layers:
            np.add.at(pixels, (layer[mask != 255], mask[mask != 255]), 1)
        for value in set(np.unique(mask).tolist()) - {0, 255}:
            matches = []
            for layer in layers:
                for label in np.unique(layer):
                    region, thing = (layer == label) & (mask != 255), mask == value
                    iou = (region & thing).sum() / (region | thing).sum()
                    matches.append((iou, region.sum() / thing.sum()))
            best.append(max(matches, key=lambda match: match[0]))
    found = figures_of(measured)
    assert found["objects"]["all"]["objects"] == len(best)
    assert found["objects"]["all"]["iou"] == pytest.approx(np.mean([iou for iou, _ in best]))
    ratios = [ratio for iou, ratio in best if iou > 0]
    assert found["objects"]["all"]["area_ratio"] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert found["objects"]["usable"]["iou"] <= found["objects"]["all"]["iou"]
    assert found["classes"]["all"] == pytest.approx(quality.agreement(pixels))
    assert found["masks"] == {"images": 36, "missing": 0}


def test_tasks_are_those_of_plain_loops(measured, photos):
    """A region's partner is looked for in its group of two shards, among the usable regions of its cluster."""
    stems = {key: json.loads(members["json"])["path"][:-4] for key, members in samples(measured.manifest("shard"))}
    maps = dict(samples(measured.manifest("label")))
    label = measured.manifest("label")
    tables = [read_regions(label.folder, [file]) for file in label.named(".regions.parquet")]
    rules, found = measured.config.pair, defaultdict(list)
    for number in range(0, len(tables), rules.group_shards):
        group = [
            (table, row)
            for table in tables[number : number + rules.group_shards]
            for row in np.flatnonzero(pairs.usable(table, rules))
        ]
        for table, row in group:
            found["area"].append(table.area[row])
            mine = _fit(table, row, maps, photos, stems)
            found["object"].append(mine[1] > 0.5)
            others = [
                (float(table.descriptor[row] @ other.descriptor[i]), _fit(other, i, maps, photos, stems))
                for other, i in group
                if other.key[i] != table.key[row] and other.label[i] == table.label[row]
            ]
            if others:
                cosine, partner = max(others, key=lambda one: one[0])
                same = mine[0] == partner[0] and mine[0] != 0
                found["likeness"].append(cosine)
                found["same_class"].append(same)
                found["clean"].append(same and min(mine[1], partner[1]) > 0.5)
    told = figures_of(measured)["tasks"]
    assert told["regions"] == len(found["area"])
    assert told["tasks"] == pytest.approx(len(found["likeness"]) / len(found["area"]))
    assert {name: told[name] for name in found} == pytest.approx({name: np.mean(found[name]) for name in found})


def _fit(table, row, maps, photos, stems):
    """The class that a region fits best, and its IoU with that."""
    mask = files.read_mask(photos / "SegmentationClass" / f"{stems[table.key[row]]}.png")
    region = images.decode_labels(maps[table.key[row]][f"{table.layer[row]}.png"]) == table.label[row]
    region &= mask != 255
    ious = {
        value: (region & (mask == value)).sum() / (region | (mask == value)).sum()
        for value in set(np.unique(mask).tolist()) - {0, 255}
    }
    best = max(ious, key=ious.get, default=0)
    return (best, ious[best]) if ious.get(best, 0) > 0 else (0, 0.0)


def test_the_atlas_shows_the_nearest_regions_of_distinct_images(measured):
    manifest, clusters = measured.manifest("quality"), read_clusters(measured.manifest("kmeans"))
    parts = [ShardFigures.decode(path.read_bytes()) for path in sorted((manifest.folder / "sums").iterdir())]
    found = parts[0]
    for part in parts[1:]:
        found.add(part, most=3)
    assert ShardFigures.decode(found.encode()).encode() == found.encode()
    distances: list[dict[str, float]] = [{} for _ in clusters.centroids]
    for _, row in regions_of(measured):
        nearest, distance = clusters.nearest(np.array([row["descriptor"]], np.float32))
        if nearest[0] == row["label"]:
            mine = distances[row["label"]]
            mine[row["key"]] = min(float(distance[0]), mine.get(row["key"], np.inf))
    for mine, best in zip(distances, found.central, strict=True):
        assert len({one.key for one in best}) == len(best) == min(3, len(mine))
        assert [one.distance for one in best] == pytest.approx(sorted(mine.values())[:3], abs=1e-5)
    (atlas,) = manifest.named(".jpg")
    shown = len([best for best in found.central if best])
    crops = [file.read_bytes() for file in (manifest.folder / "crops").iterdir()]
    assert sum(len(list(shards.unpack(tar))) for tar in crops) == sum(map(len, found.central))
    assert Image.open(manifest.folder / atlas.path).height >= 96 * -(-shown // 2)


def test_what_the_report_says(measured):
    section = summary._clusters(measured)
    assert all(len({len(row) for row in table}) == 1 for table in section.tables)
    page = report.render(report.Report(title="t", galleries=[section]))
    assert "<h2>Clusters</h2>" in page
    assert "best region of each object" in page
    found = figures_of(measured)
    without = {key: found[key] for key in ("clusters", "regions")}
    without["tasks"] = {key: found["tasks"][key] for key in WITHOUT_MASKS}
    assert len(quality_text.tables(without)) == 2
    assert "masks" not in quality_text.note(without)
    lines = quality_text.lines(found["tasks"]).splitlines()
    assert lines[0].split() == ["usable", "regions", f"{found['tasks']['regions']:.0f}"]
    assert lines[-1].split() == ["clean", "tasks", "[%]", f"{100 * found['tasks']['clean']:.1f}"]
    assert len(lines) == len(found["tasks"]) == len(quality_text.lines(without["tasks"]).splitlines()) + 4


def test_the_pipeline_makes_it_after_label_unless_told_not_to(measured, configure, start, tmp_path):
    names = summary.stages(measured)
    assert names.index("quality") == names.index("label") + 1
    assert names[-1] == "evaluate"
    off = start(configure(tmp_path, "quality.enabled=false"))
    assert "quality" not in summary.stages(off)
    assert off.identity("quality")[2] != measured.identity("quality")[2]  # other masks
    on = start(configure(tmp_path))
    assert off.identity("quality")[2] == on.identity("quality")[2]
    assert on.identity("train")[2] == measured.identity("train")[2]


def test_masks_that_are_not_there_or_do_not_fit_are_refused(measured, configure, start, tmp_path, photos):
    root = measured.config.root
    with pytest.raises(ValueError, match=r"quality.masks: expected a folder of masks, there is no .*nowhere"):
        start(configure(root, f"quality.masks={tmp_path}/nowhere")).ensure("quality")
    with pytest.raises(ValueError, match=r"found none for 36 images; give the right folder, or quality.masks=null"):
        start(configure(root, f"quality.masks={tmp_path}")).ensure("quality")
    Image.fromarray(np.zeros((10, 40), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected a mask of the shape of its image, 96x96 or larger, got 40x10"):
        ClassMasks(tmp_path, "").read("deep/a.jpg", (96, 96))


def test_masks_are_found_by_path_or_name_and_shrunk_without_mixing(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[:20], mask[20:, 30:] = 7, 255
    (tmp_path / "deep").mkdir()
    Image.fromarray(mask).save(tmp_path / "deep" / "a.png")
    Image.fromarray(mask[::-1]).save(tmp_path / "b.png")
    masks = ClassMasks(tmp_path, "", ("background", "cat"))
    expected = np.array([[7, 7, 7], [0, 0, 255]])
    np.testing.assert_array_equal(masks.read("deep/a.jpg", (2, 3))[:, [0, 2]], expected[:, [0, 2]])
    np.testing.assert_array_equal(masks.read("any/where/b.jpg", (40, 60)), mask[::-1])
    assert masks.read("c.jpg", (40, 60)) is None
    assert (masks.name(1), masks.name(7)) == ("cat", "class 7")
