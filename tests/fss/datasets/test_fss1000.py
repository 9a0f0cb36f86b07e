"""FSS-1000: classes from a list or a split, binary masks in colour or grey."""

import re

import numpy as np
import pytest
from PIL import Image

from fss import datasets
from fss.datasets import open_dataset

SHOWN = np.array([[0, 1, 1], [0, 1, 0]], bool)


def write(root, classes, numbers=(1, 2, 10), mask=None):
    mask = Image.fromarray(np.uint8(SHOWN[..., None] * [255, 255, 255])) if mask is None else mask
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", SHOWN.shape[::-1], (10, 20, 30)).save(root / name / f"{number}.jpg")
            mask.save(root / name / f"{number}.png")
    return root


def test_classes_of_a_list_in_its_order(tmp_path):
    write(tmp_path, ["abacus", "ab_wheel", "zucchini"])
    (tmp_path / "test.txt").write_text("zucchini\nabacus\n")
    found = open_dataset("fss1000", str(tmp_path), "test.txt")
    assert found.class_names == ("zucchini", "abacus")
    assert found.folds == ((1, 2),)
    assert found.names == tuple(f"{c}/{n}" for c in ("zucchini", "abacus") for n in (1, 2, 10))
    assert datasets.areas(found, "abacus/10") == {2: 3}
    assert found.binary_mask("zucchini/1", 1).tolist() == SHOWN.astype(int).tolist()
    assert not found.binary_mask("zucchini/1", 2).any()


BINARY = {
    "grey 0 and 255": Image.fromarray(np.uint8(SHOWN * 255)),
    "grey 0 and 1": Image.fromarray(np.uint8(SHOWN)),
    "one bit": Image.fromarray(SHOWN),
    "smoothed edges": Image.fromarray(np.uint8(np.where(SHOWN, 200, 90))),
    "transparent background": Image.fromarray(np.uint8(SHOWN[..., None] * [255, 255, 255, 255])),
    "red": Image.fromarray(np.uint8(SHOWN[..., None] * [255, 0, 0])),
}


@pytest.mark.parametrize("kind", BINARY)
def test_masks_of_every_kind_are_binary(tmp_path, kind):
    write(tmp_path, ["cup"], mask=BINARY[kind])
    (tmp_path / "one.txt").write_text("cup")
    found = open_dataset("fss1000", str(tmp_path), "one.txt")
    assert found.mask("cup/1").tolist() == SHOWN.astype(int).tolist()


def test_1000_folders_are_split_520_240_240_and_class_255_is_not_void(tmp_path):
    names = [f"class{i:04}" for i in range(1000)]
    write(tmp_path, names, numbers=(1,))
    sets = {split: open_dataset("fss1000", str(tmp_path), split=split) for split in ("train", "val", "test")}
    assert [len(s.class_names) for s in sets.values()] == [520, 240, 240]
    assert [name for s in sets.values() for name in s.class_names] == names
    assert open_dataset("fss1000", str(tmp_path)).class_names == sets["test"].class_names
    train = sets["train"]
    for number in (255, 256, 520):
        name = f"class{number - 1:04}/1"
        assert datasets.areas(train, name) == {number: 3}
        assert train.binary_mask(name, number).tolist() == SHOWN.astype(int).tolist()
    assert train.mask("class0519/1").dtype == np.uint16


def test_what_is_missing_is_named(tmp_path):
    def refuses(text, list_file=None, **options):
        with pytest.raises(ValueError, match=re.escape(text)):
            open_dataset("fss1000", str(tmp_path), list_file, **options)

    write(tmp_path, ["cup"])
    refuses(f"expected 1000 class folders with 1.jpg to 10.jpg in {tmp_path}, got 1; check dataset.root, or name the")
    refuses("dataset.split: expected train, val, test, got 'tset'", split="tset")
    (tmp_path / "list.txt").write_text("cup\nmug\n")
    refuses(f"expected images 1.jpg and masks 1.png in {tmp_path / 'mug'}; check dataset.root and", "list.txt")
    refuses("expected dataset.list or dataset.split, got both", "list.txt", split="val")
    (tmp_path / "list.txt").write_text("cup\n")
    found = open_dataset("fss1000", str(tmp_path), "list.txt")
    (tmp_path / "cup" / "2.png").write_bytes((tmp_path / "cup" / "2.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cup/2\.png: "):
        found.mask("cup/2")
    Image.new("L", (9, 9)).save(tmp_path / "cup" / "1.png")
    with pytest.raises(ValueError, match=r"cup/1: expected a mask of 3x2 like its image, got \(9, 9\)"):
        datasets.areas(found, "cup/1")
