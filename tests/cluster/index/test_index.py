"""The index of regions: those of the smallest hashes, as the head sees them; the model that it is exported with."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from cluster.engine.stage import StageError, read_file
from cluster.index import stage
from cluster.pair.groups import read_regions
from cluster.stages import STAGES
from fss import heads, rng, shards
from fss.grid import cells
from fss.imaging import images
from fss.segmenter import Segmenter
from fss.tasks.pairing.parts import pairs
from tests.cluster.evaluate.results import figures

SIZE = 7
MODEL = ("model=corpus_readout", f"model.options.index_size={SIZE}")
MEASURED = ("shots=1", "episodes=8", "dataset.min_area=100")


@pytest.fixture(scope="module", autouse=True)
def _all_shards_are_looked_at():
    """However many regions the first ones have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_LOOKED_AT", 1000)
        yield


@pytest.fixture(scope="module")
def indexed(tiny_run, configure, start):
    """The tiny run with an index of some of its regions."""
    run = start(configure(tiny_run.config.root, *MODEL))
    run.ensure("index")
    return run


def model_of(run):
    return Segmenter.load(run.manifest("index").folder, "cpu")


def usable(run):
    """(key, layer, label) of every usable region of the run."""
    label = run.manifest("label")
    table = read_regions(label.folder, label.named(".regions.parquet"))
    rows = np.flatnonzero(pairs.usable(table, run.config.pair))
    return [(str(table.key[i]), int(table.layer[i]), int(table.label[i])) for i in rows]


def samples(run, name):
    manifest = run.manifest(name)
    return dict(s for file in manifest.named(".tar") for s in shards.unpack(read_file(manifest.folder, file)))


def test_it_holds_the_prototypes_of_the_regions_with_the_smallest_hashes(indexed):
    every, photos, maps = usable(indexed), samples(indexed, "shard"), samples(indexed, "label")
    assert len(every) > SIZE
    model = model_of(indexed)
    rows = []
    for key, layer, label in sorted(every, key=lambda place: rng.mix(indexed.config.seed, "index", *place))[:SIZE]:
        features = model.extractor([images.decode(photos[key]["jpg"])])
        mask = (images.decode_labels(maps[key][f"{layer}.png"]) == label).astype(np.uint8)
        side = features["high"].shape[-1]
        shares = cells(mask, side, model.extractor.backbone.corners)[None]
        rows.append(model.head.prototypes(model.head.embed(features), shares)[0])
    found, expected = model.head.index.float().swapaxes(0, 1), torch.stack(rows)
    distances = torch.cdist(found.flatten(1), expected.flatten(1))
    assert distances.amin(dim=0).max() < 1e-2
    assert distances.amin(dim=1).max() < 1e-2


def test_this_process_and_two_workers_make_the_same_bytes(indexed, start, pools, tmp_path):
    shared = start(indexed.config, pools[2])
    for name in ("shard", "label"):
        shared.ensure(name)
    found, counts = STAGES["index"].work(shared.work("index", tmp_path))
    told, written = (
        [file for file in files if file.path not in ("model.json", "README.md")]  # they name their folder
        for files in (indexed.manifest("index").files, found)
    )
    assert told == written
    assert counts == indexed.manifest("index").counts


def test_its_size_is_stated(indexed):
    manifest, head = indexed.manifest("index"), model_of(indexed).head
    assert manifest.counts["regions"] == SIZE == head.index.shape[1]
    assert manifest.counts["images"] <= SIZE
    assert manifest.counts["bytes"] == SIZE * 2 * head.index.shape[2] * 2
    assert json.loads((manifest.folder / "model.json").read_text())["model"]["options"]["index_size"] == SIZE


def test_an_index_is_no_larger_than_the_corpus(indexed, configure, start):
    run = start(configure(indexed.config.root, "model=corpus_readout"))
    run.ensure("index")
    assert model_of(run).head.index.shape[1] == len(usable(run)) < 4096


def test_the_exported_model_measures_as_the_run_does_and_beside_a_trained_one(indexed, configure, start):
    """As the model, exported, and as a floor of what was trained: the same episodes and figures."""
    root, folder = indexed.config.root, indexed.manifest("index").folder
    own = figures(start(configure(root, *MODEL, *MEASURED, "baselines=smoothed")).ensure("evaluate"))["models"]
    exported = start(configure(root, f"model={folder}", *MEASURED, "baselines=smoothed"))
    assert list(own) == ["smoothed read-out", "corpus read-out"]
    assert list(figures(exported.ensure("evaluate"))["models"].values()) == list(own.values())
    beside = start(configure(root, *MEASURED, "baselines=[smoothed,corpus_readout]"))
    found = figures(beside.ensure("evaluate"))["models"]
    assert list(found) == ["smoothed read-out", "corpus read-out", "umtfss, meta-trained"]
    assert found["smoothed read-out"] == own["smoothed read-out"]
    assert found["corpus read-out"] != own["corpus read-out"]  # of its default size


def test_without_an_index_nothing_of_the_corpus_is_needed(configure, start, tmp_path):
    run = start(configure(tmp_path, "model=corpus_readout", "model.options.index_size=0", *MEASURED))
    assert run.order("evaluate") == ["evaluate"]
    with pytest.raises(ValueError, match=r"model.options.index_size: expected at least 1 for jobs.index, got 0"):
        run.ensure("index")


def test_the_exported_model_segments(indexed, photos):
    model = model_of(indexed)
    names = (photos / "ImageSets/val.txt").read_text().split()[:2]
    first, query = (Image.open(photos / "JPEGImages" / f"{name}.jpg") for name in names)
    mask = np.zeros(first.size[::-1], np.uint8)
    mask[20:60, 20:60] = 1
    assert model.segment(query, [first], [mask]).shape == query.size[::-1]
    assert load((indexed.manifest("index").folder / "model.safetensors").read_bytes())["index"].dtype == torch.float16


def test_an_index_of_another_backbone_is_refused_beside_a_model(tiny_run, configure, start):
    folder = tiny_run.manifest("train").folder / "model"
    run = start(configure(tiny_run.config.root, f"model={folder}", "baselines=corpus_readout", "seed=3", *MEASURED))
    with pytest.raises(ValueError, match=r"baselines: expected an index of regions as the measured model's backbone"):
        run.ensure("evaluate")


def test_labels_without_usable_regions_are_refused(indexed, configure, start):
    run = start(configure(indexed.config.root, *MODEL, "pair.min_area=0.98", "pair.max_area=0.99"))
    with pytest.raises(StageError, match=r"index: expected usable regions, found none .* loosen pair.min_area"):
        run.ensure("index")


def test_what_names_were_seen_is_in_the_model(indexed):
    assert set(heads.looking_up()) == {"corpus_readout"}
    assert "classes" not in model_of(indexed).about["facts"]  # clusters see none
