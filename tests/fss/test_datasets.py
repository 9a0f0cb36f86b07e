"""Labelled sets in PASCAL VOC's layout: folds, lists, masks, and what is said when something is missing."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fss import datasets, scenes
from fss.datasets import open_dataset
from fss.datasets.voc import PASCAL_CLASSES

MASK = np.array([[0, 0, 1, 1], [0, 20, 255, 1], [0, 20, 20, 255]], np.uint8)


def write(
    root, names=("one", "two"), mask=MASK, folder="SegmentationClassAug", listed="ImageSets/Segmentation/val.txt"
):
    for sub in ("JPEGImages", folder, str((root / listed).parent.relative_to(root))):
        (root / sub).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", MASK.shape[::-1], (10, 20, 30)).save(root / "JPEGImages" / f"{name}.jpg")
        palette = Image.fromarray(mask, mode="P")
        palette.putpalette([i // 3 for i in range(768)])
        palette.save(root / folder / f"{name}.png")
    (root / listed).write_text("".join(f"{name}\n" for name in names))
    return root


def test_pascal5i_folds_follow_shaban_et_al(tmp_path):
    found = open_dataset("pascal5i", str(write(tmp_path)))
    assert found.names == ("one", "two")
    assert len(found.class_names) == 20
    assert found.folds == (
        (1, 2, 3, 4, 5),
        (6, 7, 8, 9, 10),
        (11, 12, 13, 14, 15),
        (16, 17, 18, 19, 20),
    )
    assert [found.class_names[c - 1] for c in found.folds[0]] == ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    assert PASCAL_CLASSES[14] == "person"
    assert PASCAL_CLASSES[-1] == "tvmonitor"


@pytest.mark.parametrize("folder", ["SegmentationClassAug", "SegmentationClass"])
def test_images_and_masks_by_name(tmp_path, folder):
    found = open_dataset("pascal5i", str(write(tmp_path, folder=folder)))
    assert found.image("one").size == (4, 3)
    assert np.array_equal(found.mask("two"), MASK)
    binary = found.binary_mask("one", 20)
    assert binary.dtype == np.uint8
    assert binary.tolist() == [[0, 0, 0, 0], [0, 1, 255, 0], [0, 1, 1, 255]]


def test_the_augmented_masks_are_preferred(tmp_path):
    write(tmp_path, mask=MASK * 0, folder="SegmentationClass")
    write(tmp_path)
    assert open_dataset("pascal5i", str(tmp_path)).mask("one").max() == 255


def test_areas_leave_out_background_and_void(tmp_path):
    assert datasets.areas(open_dataset("pascal5i", str(write(tmp_path))), "one") == {1: 3, 20: 3}


def test_lists_may_hold_paths_blank_lines_and_columns(tmp_path):
    write(tmp_path, names=("a", "b", "c"))
    (tmp_path / "mine.txt").write_text("JPEGImages/c.jpg Masks/c.png\n\n  a\n")
    assert open_dataset("pascal5i", str(tmp_path), "mine.txt").names == ("c", "a")
    assert open_dataset("pascal5i", str(tmp_path), str(tmp_path / "mine.txt")).names == ("c", "a")


def test_scenes_take_their_classes_from_the_folder(tmp_path):
    write(tmp_path, listed="ImageSets/val.txt")
    (tmp_path / "classes.json").write_text(json.dumps([f"class{i}" for i in range(8)]))
    found = open_dataset("scenes", str(tmp_path))
    assert found.folds == ((1, 2), (3, 4), (5, 6), (7, 8))
    assert found.class_names[7] == "class7"


def test_the_rendered_corpus_opens(tmp_path):
    scenes.write(tmp_path, 10, size=64)
    found = open_dataset("scenes", str(tmp_path))
    assert len(found.names) == 2
    assert found.mask(found.names[0]).shape == (64, 64)
    assert datasets.areas(found, found.names[0])


def refuses(text: str, name: str, root, list_file: str | None = None) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        open_dataset(name, str(root), list_file)


def test_what_is_missing_is_named_with_the_setting(tmp_path):
    refuses("expected a dataset of pascal5i, scenes, got 'pascal'; did you mean 'pascal5i'?", "pascal", tmp_path)
    refuses(
        f"expected {tmp_path / 'classes.json'}, written by the render stage; check dataset.root", "scenes", tmp_path
    )
    refuses("expected JPEGImages and SegmentationClassAug or SegmentationClass in", "pascal5i", tmp_path)
    write(tmp_path)
    refuses("expected a list file of image names at none.txt or", "pascal5i", tmp_path, "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    refuses("one a line, got an empty file", "pascal5i", tmp_path, "empty.txt")


def test_masks_of_other_sizes_or_classes_are_refused(tmp_path):
    found = open_dataset("pascal5i", str(write(tmp_path / "a", mask=MASK[:, :3].copy())))
    with pytest.raises(ValueError, match=r"one: expected a mask of 4x3 like its image, got \(3, 3\)"):
        datasets.areas(found, "one")
    found = open_dataset("pascal5i", str(write(tmp_path / "b", mask=MASK + (MASK == 20))))
    with pytest.raises(ValueError, match=r"one: expected class indices 0\.\.20 and 255, got \[21\]; is it a mask of"):
        datasets.areas(found, "one")
    Image.new("RGB", (4, 3)).save(tmp_path / "b" / "SegmentationClassAug" / "one.png")
    with pytest.raises(ValueError, match="one channel of class indices, got mode RGB"):
        found.mask("one")
