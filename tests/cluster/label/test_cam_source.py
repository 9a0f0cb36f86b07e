"""Source cam under Ray: labels of names that masks were reduced to, what is left out, what a model says, errors."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.engine.stage import read_file
from cluster.evaluate.episode_list import decode
from cluster.evaluate.measure import DataSpec
from cluster.train import stage as train
from fss import segmenter, shards
from fss.datasets import open_dataset
from fss.imaging import images
from fss.scenes.scene import CLASSES
from fss.tasks import task
from jobs._config import load

FOREIGN = ("zebra", "rowing boat", "an other apple")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Word vectors of the scenes' classes and of a thousand classes of a classifier, some called like the former."""
    folder = tmp_path_factory.mktemp("cam")
    classes = [*FOREIGN, f"big_{CLASSES[0]}", CLASSES[7], *(f"thing{i}" for i in range(995))]
    generator = np.random.default_rng(0)
    spelled = [word.replace(" ", "_") for word in (*CLASSES, *classes)]
    rows = [f"{word} " + " ".join(map(str, generator.normal(size=4).round(3))) for word in dict.fromkeys(spelled)]
    (folder / "words.vec").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("\n".join(classes))
    return [
        "source=cam",
        f"source.words={folder}/words.vec",
        f"source.classes={folder}/classes.txt",
        "source.classifier=mobilenet_v2",
        "source.classifier_weights=random",
    ]


@pytest.fixture(scope="module")
def labelled(configure, start, tmp_path_factory, files):
    run = start(configure(tmp_path_factory.mktemp("runs"), *files))
    run.ensure("label")
    return run


def test_images_have_labels_of_the_names_they_show(labelled):
    """Of fold 0's training classes alone; the tested ones are never looked for."""
    root = labelled.config.dataset.root
    dataset = open_dataset("scenes", root, "ImageSets/train.txt")
    tested = {dataset.class_names[c - 1] for c in dataset.folds[0]}
    names = labelled.settings("label").source.names
    assert tested.isdisjoint(names)
    corpus, labels, seen = labelled.manifest("shard"), labelled.manifest("label"), set()
    for pictures, file in zip(corpus.named(".tar"), labels.named(".tar"), strict=True):
        about = [
            json.loads(members["json"])["path"] for _, members in shards.unpack(read_file(corpus.folder, pictures))
        ]
        for path, (_, maps) in zip(about, shards.unpack(read_file(labels.folder, file)), strict=True):
            found = set(np.unique(images.decode_labels(maps["0.png"])).tolist()) - {0}
            stem = path.removesuffix(".jpg")
            shown = np.unique(dataset.mask(stem)) if stem in dataset.names else []
            real = {dataset.class_names[c - 1] for c in shown if 0 < c < 255}
            assert {names[label - 1] for label in found} <= real - tested
            seen |= found
    assert len(seen) > 3
    regions = pq.read_table(labels.folder / labels.named(".regions.parquet")[0].path)
    assert set(regions["label"].to_pylist()) <= seen


def test_images_of_one_name_make_tasks_that_a_model_learns_from(configure, start, files, tmp_path):
    """By a table of the names of all images, in which every one shows one thing of two. The model says which."""
    table = tmp_path / "names.csv"
    table.write_text("".join(f"{number:06d}.jpg,{('cup', 'boat')[number % 2]}\n" for number in range(36)))
    lenient = [f"pair.{key}" for key in ("min_area=0", "max_area=1", "max_border=1", "empty_lines=0", "nearest=1")]
    model = ["model=pixel_meta", "train.loss=cross_entropy", f"source.names={table}"]
    run = start(configure(tmp_path / "runs", *files, *lenient, *model))
    pair = run.ensure("pair")
    assert pair.counts["tasks"] > 10
    corpus = run.manifest("shard")
    paths = {
        key: json.loads(members["json"])["path"]
        for file in corpus.named(".tar")
        for key, members in shards.unpack(read_file(corpus.folder, file))
    }
    for file in pair.named(".tar"):
        for sample in shards.unpack(read_file(pair.folder, file)):
            first, second = (int(paths[key].removesuffix(".jpg")) for key in task.decode(sample).keys)
            assert first != second
            assert first % 2 == second % 2
    facts = segmenter.read_about(run.ensure("train").folder / "model")["facts"]
    assert (facts["labelled"], facts["classes"]) == ("names", ["boat", "cup"])


def test_the_manifest_says_what_was_left_out(labelled):
    """By name, of classes that fold 0 trains on and tests: whole ones, and those that end in one."""
    settings = labelled.manifest("label").settings
    assert settings["source"]["left_out"] == ["rowing boat", f"big_{CLASSES[0]}", CLASSES[7]]


def test_a_model_says_which_names_it_has_seen(labelled, configure, start, files):
    run = start(configure(labelled.config.root, *files, "train.tasks=stream"))
    run.ensure("label")
    facts = train.job(run.work("train")).recipe.facts
    assert facts["labelled"] == "names"
    assert (facts["dataset"], facts["fold"]) == ("scenes", 0)
    assert set(facts["classes"]) == set(labelled.settings("label").source.names)


@pytest.fixture(scope="module")
def measured(configure, start, tmp_path_factory, files, photos):
    """The same episodes with supports that show their masks, and with such that bring names only; true maps gate."""
    gate = (f"source.maps={photos}/SegmentationClass", "source.maps_kind=classes")
    options = ("model=prototype", "fold=all", "episodes=4", "dataset.min_area=100", *files, *gate)
    folder = tmp_path_factory.mktemp("measured")
    return [
        start(configure(folder, *options, f"name={supports}", f"protocol.supports={supports}")).ensure("evaluate")
        for supports in ("masks", "names")
    ]


def test_supports_that_bring_names_only(measured, photos):
    """Models are shown masks made of names: the saved ones, which overlap with the true ones as the figures say."""
    (masked, named), found = measured, []
    about = [json.loads(stage.path("metrics.json").read_text()) for stage in measured]
    assert about[0]["episodes_sha256"] == about[1]["episodes_sha256"]
    assert [one["protocol"]["supports"] for one in about] == ["masks", "names"]
    assert about[0]["protocol"]["support_iou"] is None
    dataset = DataSpec("scenes", str(photos), None, supports=str(named.folder / "supports")).open()
    overlap = np.zeros(2)
    for item in decode(named.path("episode_list.parquet").read_bytes(), dataset):
        for way in item.episode.ways:
            found += [(name, way.class_id) for name in way.supports]
    for name, class_id in set(found):
        shown, true = dataset.support_mask(name, class_id), dataset.binary_mask(name, class_id)
        assert set(np.unique(shown)) <= {0, 1}
        assert shown.any()
        assert dataset.mask(name)[shown == 1].all()
        shown = np.where(true == 255, 0, shown)
        overlap += [(shown & (true == 1)).sum(), (shown | (true == 1)).sum()]
    assert about[1]["protocol"]["support_iou"] == pytest.approx(overlap[0] / overlap[1])
    assert len(list((named.folder / "supports").rglob("*.png"))) == len(set(found))
    assert f"{100 * overlap[0] / overlap[1]:.1f}" in named.path("table.md").read_text()
    tables = [pq.read_table(stage.path("episodes.parquet")) for stage in (masked, named)]
    assert tables[0]["episode"].equals(tables[1]["episode"])
    assert not tables[0]["intersection"].equals(tables[1]["intersection"])


def test_a_change_of_the_names_masks_is_another_evaluation(measured):
    """What shapes the masks stands in the settings, the classes that the classifier is not asked for by name."""
    masked, named = (stage.settings for stage in measured)
    assert masked["names"] is None
    assert named["names"]["left_out"] == ["rowing boat", f"big_{CLASSES[0]}", CLASSES[7]]
    assert named["names"]["threshold"] == 0.15


def test_what_is_missing_is_asked_for(configure, start, files, tmp_path):
    for change, complaint in (
        ("source.words=null", r"set source\.words=FILE"),
        ("source.classifier_weights=null", r"set source\.classifier_weights=FILE"),
        ("fold=all", "expected the number of the fold to be tested with source=cam"),
        ("source.names=nowhere.csv", "cannot read nowhere.csv"),
    ):
        with pytest.raises(ValueError, match=complaint):
            start(configure(tmp_path, *files, change)).ensure("label")


def test_bad_settings_are_refused():
    for change, complaint in (
        ("weighting=max", r"source\.weighting: expected one of softmax"),
        ("scale=all", r"source\.scale: expected one of"),
        ("threshold=0", r"source\.threshold: expected a share"),
        ("temperature=0", r"source\.temperature: expected a positive number"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load(["experiment=tiny", "source=cam", f"source.{change}"])
