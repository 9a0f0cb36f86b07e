"""Which labelled images and classes training may use: the list of the set, and no class that its fold tests."""

import json

import numpy as np
import pytest
from PIL import Image

from fss.datasets import fss1000, open_training


@pytest.fixture
def voc(tmp_path):
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def listed(root, name, *names):
    (root / "ImageSets/Segmentation" / name).write_text("".join(f"{one}\n" for one in names))


def test_pascal_trains_on_the_other_folds_and_its_largest_list(voc):
    listed(voc, "train.txt", "a")
    dataset, classes = open_training("pascal5i", str(voc), None, 1)
    assert dataset.names == ("a",)
    assert classes == (*range(1, 6), *range(11, 21))
    listed(voc, "trainaug.txt", "a", "b")
    assert open_training("pascal5i", str(voc), None, 1)[0].names == ("a", "b")
    listed(voc, "mine.txt", "c")
    assert open_training("pascal5i", str(voc), "ImageSets/Segmentation/mine.txt", 1)[0].names == ("c",)


def test_a_missing_list_and_a_wrong_fold_are_said(voc):
    with pytest.raises(ValueError, match=r"trainaug\.txt or .*train\.txt; set train\.images=FILE"):
        open_training("pascal5i", str(voc), None, 0)
    listed(voc, "train.txt", "a")
    with pytest.raises(ValueError, match=r"fold: pascal5i has the folds 0\.\.3, got 4"):
        open_training("pascal5i", str(voc), None, 4)


def test_coco_trains_on_its_train_images(tmp_path):
    for part in ("train2017", "annotations/train2017"):
        (tmp_path / part).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "train2017/000001.jpg")
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "annotations/train2017/000001.png")
    dataset, classes = open_training("coco20i", str(tmp_path), None, 3, folds="interleaved")
    assert dataset.names == ("train2017/000001",)
    assert classes == tuple(c for c in range(1, 81) if c % 4)
    assert dataset.mask_path("train2017/000001").is_file()
    assert open_training("coco20i", str(tmp_path), None, 3, folds="consecutive")[1] == tuple(range(1, 61))


def test_a_folder_needs_a_list_and_folds(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for name in "ab":
            Image.new("L", (4, 4)).save(tmp_path / part / f"{name}.png")
    (tmp_path / "classes.json").write_text(json.dumps(["cat", "dog"]))
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"a list of folder's training images; set train\.images=FILE"):
        open_training("folder", str(tmp_path), None, 0, num_folds=2)
    assert open_training("folder", str(tmp_path), "list.txt", 0, num_folds=2)[1] == (2,)
    with pytest.raises(ValueError, match=r"tests all 2; set dataset\.num_folds"):
        open_training("folder", str(tmp_path), "list.txt", 0)


def test_fss1000_trains_on_classes_of_another_list(tmp_path, monkeypatch):
    monkeypatch.setattr(fss1000, "SPLITS", {"train": 2, "val": 0, "test": 1})
    for name in ("ant", "bee", "cow"):
        (tmp_path / name).mkdir()
        for suffix in ("jpg", "png"):
            Image.new("L", (4, 4)).save(tmp_path / name / f"1.{suffix}")
    dataset, classes = open_training("fss1000", str(tmp_path), None, 0)
    assert [dataset.class_names[c - 1] for c in classes] == ["ant", "bee"]
    (tmp_path / "test.txt").write_text("bee\n")
    dataset, classes = open_training("fss1000", str(tmp_path), None, 0, tested="test.txt")
    assert [dataset.class_names[c - 1] for c in classes] == ["ant"]
