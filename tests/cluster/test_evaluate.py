"""Evaluation: integer counts that do not depend on the workers, and figures that the saved masks bear out."""

import io
import json
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.stage import read_file
from fss.scenes import CLASSES
from jobs.evaluate import copy_results

_OPTIONS = ("model=prototype", "shots=[1,2]", "episodes=60", "save_predictions=true", "dataset.min_area=100")
_FOLDER = "predictions/prototype-read-out/fold0-{}shot/{:06d}.png"


@pytest.fixture(scope="module")
def measured(configure, start, tmp_path_factory):
    """The prototype read-out's evaluation by 2 workers."""
    return start(configure(tmp_path_factory.mktemp("two"), *_OPTIONS), workers=2).ensure("evaluate")


def figures(manifest):
    return json.loads(manifest.path("metrics.json").read_text())


def rows(manifest):
    return pq.read_table(manifest.path("episodes.parquet")).to_pylist()


def truth(photos, row):
    mask = np.asarray(Image.open(photos / "SegmentationClass" / f"{row['query']}.png"))
    return mask == row["class_id"], mask == 255


def images_of(photos, min_area):
    """Class -> number of evaluation images that show it on at least `min_area` pixels, from the masks."""
    found = dict.fromkeys(range(1, 21), 0)
    for name in (photos / "ImageSets" / "val.txt").read_text().split():
        mask = np.asarray(Image.open(photos / "SegmentationClass" / f"{name}.png"))
        for class_id in found:
            found[class_id] += int((mask == class_id).sum() >= min_area)
    return found


def test_one_and_two_workers_agree_to_the_last_integer(measured, configure, start, tmp_path):
    alone = start(configure(tmp_path, *_OPTIONS), workers=1).ensure("evaluate")
    assert {f.path: f.sha256 for f in alone.files} == {f.path: f.sha256 for f in measured.files}
    assert rows(alone) == rows(measured)
    assert len(rows(measured)) == 2 * 60


def test_counts_are_those_of_the_saved_masks(measured, photos):
    for row in rows(measured):
        yes = np.asarray(Image.open(measured.folder / _FOLDER.format(row["shots"], row["episode"])))
        thing, void = truth(photos, row)
        assert yes.shape == thing.shape
        assert set(np.unique(yes)) <= {0, 1}
        predicted = (yes == 1) & ~void
        assert row["intersection"] == (predicted & thing).sum()
        assert row["union"] == (predicted | thing).sum()
        assert (row["predicted"], row["true"]) == (predicted.sum(), thing.sum())
        assert row["background_union"] == (~void).sum() - row["intersection"]
        assert row["background_intersection"] == (~void).sum() - row["union"]


@pytest.mark.parametrize("shots", [1, 2])
def test_metrics_from_the_saved_masks(measured, photos, shots):
    sums, each = defaultdict(lambda: np.zeros(2)), defaultdict(list)
    foreground, background = np.zeros(2), np.zeros(2)
    for row in (r for r in rows(measured) if r["shots"] == shots):
        yes = np.asarray(Image.open(measured.folder / _FOLDER.format(shots, row["episode"]))) == 1
        thing, void = truth(photos, row)
        both, either = (yes & thing)[~void].sum(), (yes | thing)[~void].sum()
        sums[row["class_id"]] += both, either
        each[row["class_id"]].append(both / either)
        foreground += both, either
        background += (~yes & ~thing)[~void].sum(), (~yes | ~thing)[~void].sum()
    by_class = {CLASSES[c - 1]: both / either for c, (both, either) in sums.items()}
    told = figures(measured)["models"]["prototype read-out"][str(shots)]
    fold = told["folds"]["0"]
    assert {name: value["iou"] for name, value in fold["classes"].items()} == pytest.approx(by_class)
    assert fold["miou"] == pytest.approx(np.mean(list(by_class.values())))
    assert fold["miou_episode_mean"] == pytest.approx(np.mean([np.mean(values) for values in each.values()]))
    both = foreground[0] / foreground[1], background[0] / background[1]
    assert fold["fb_iou"] == pytest.approx(np.mean(both))
    assert told["mean"]["miou"] == fold["miou"]
    assert fold["episodes"] == 60


def test_episodes_are_proper(measured, photos):
    names = set((photos / "ImageSets" / "val.txt").read_text().split())
    for row in rows(measured):
        assert len({row["query"], *row["supports"]}) == row["shots"] + 1
        assert {row["query"], *row["supports"]} <= names
        for name in (row["query"], *row["supports"]):
            mask = np.asarray(Image.open(photos / "SegmentationClass" / f"{name}.png"))
            assert (mask == row["class_id"]).sum() >= 100
        assert 1 <= row["class_id"] <= 5  # fold 0


def test_classes_with_too_few_images_are_left_out_by_name(measured, photos):
    available = images_of(photos, 100)
    expected = {
        str(shots): [CLASSES[c - 1] for c in range(1, 6) if available[c] < shots + 1]
        for shots in (1, 2)
        if any(available[c] < shots + 1 for c in range(1, 6))
    }
    assert expected, "the corpus of this test should lack images of a class"
    assert figures(measured)["left_out"] == expected
    for shots, names in expected.items():
        told = figures(measured)["models"]["prototype read-out"][shots]["folds"]["0"]["classes"]
        assert not set(names) & set(told)


def test_a_fold_without_any_class_is_refused(configure, start, tmp_path):
    run = start(configure(tmp_path, "model=prototype", "dataset.min_area=9000", "shots=3"))
    with pytest.raises(ValueError, match=r"fold 0: expected a class with at least 4 images of 9000 pixels, found none"):
        run.ensure("evaluate")


def test_labels_of_another_data_set_are_refused(configure, start, photos, tmp_path):
    """PASCAL's layout without its lists: both mistakes are named."""
    run = start(configure(tmp_path, "model=prototype", "dataset=pascal5i"))
    with pytest.raises(ValueError, match=r"expected a list file of image names at .*val\.txt; check dataset\.list"):
        run.ensure("evaluate")
    with pytest.raises(ValueError, match=r"give it as dataset\.root=FOLDER"):
        start(configure(tmp_path, "model=prototype", "dataset=pascal5i", "dataset.root=null")).ensure("evaluate")
    with pytest.raises(ValueError, match=r"expected an exported model .* the train stage writes one"):
        start(configure(tmp_path, f"model={photos}")).ensure("evaluate")


def test_results_are_copied_where_the_user_wants_them(measured, tmp_path):
    copy_results(measured, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == figures(measured)
    assert len(list((tmp_path / "out").glob("predictions/**/*.png"))) == 2 * 60
    assert pq.read_table(tmp_path / "out" / "episodes.parquet").num_rows == 2 * 60


def test_an_exported_model_beside_its_floor(tiny_run, configure, start):
    """model=FOLDER and the run that trained it give the same figures; floor and model see the same episodes."""
    options = ("shots=1", "episodes=8", "dataset.min_area=100")
    root = tiny_run.config.root
    folder = tiny_run.manifest("train").folder / "model"
    exported = start(configure(root, f"model={folder}", *options)).ensure("evaluate")
    own = start(configure(root, *options)).ensure("evaluate")
    by_model = [list(figures(manifest)["models"].values()) for manifest in (exported, own)]
    assert by_model[0] == by_model[1]
    names = list(figures(own)["models"])
    assert names[0] == "prototype read-out"
    assert names[-1] == "umtfss, meta-trained"
    found = defaultdict(list)
    for row in rows(own):
        found[row["model"]].append((row["episode"], row["class_id"], row["query"], row["supports"]))
    assert list(found) == names
    assert all(drawn == found[names[0]] for drawn in found.values())
    pictures = [f for f in own.files if f.path.startswith("gallery/")]
    assert len(pictures) == 3
    assert Image.open(io.BytesIO(read_file(own.folder, pictures[0]))).size[0] > 96
