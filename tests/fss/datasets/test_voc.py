"""Labelled sets in PASCAL VOC's layout: folds, lists, masks, and what is said when something is missing."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fss import datasets
from fss.datasets import open_dataset
from fss.datasets.pascal5i import PASCAL_CLASSES
from fss.scenes import scene as scenes
from tests.places import SHARED

DATA = SHARED / "data"
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


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("two", "two"),
        ("JPEGImages/two.jpg SegmentationClassAug/two.png", "two"),
        ("/data/VOC2012/JPEGImages/two.jpg /data/VOC2012/SegmentationClassAug/two.png saliency/two.png", "two"),
        ("SegmentationClass/two.png", "two"),
        ("two__15", "two"),
        ("one__3", "one__3"),
        ("JPEGImages/sub/three.v2.jpg x.png", "sub/three.v2"),
        ("sub/three.v2", "sub/three.v2"),
    ],
)
def test_lines_of_every_code_base(tmp_path, line, name):
    write(tmp_path, names=("two", "one__3"))
    (tmp_path / "mine.txt").write_text(f"\ufeff{line}\n{line}\n", encoding="utf-8")
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClassAug", ".png")):
        (tmp_path / folder / "sub").mkdir()
        (tmp_path / folder / f"sub/three.v2{suffix}").write_bytes((tmp_path / folder / f"two{suffix}").read_bytes())
    found = open_dataset("pascal5i", str(tmp_path), "mine.txt")
    assert found.names == (name,)
    assert found.image(name).size == (4, 3)
    np.testing.assert_array_equal(found.mask(name), MASK)


def test_a_list_below_root_goes_before_one_in_the_current_folder(tmp_path, monkeypatch):
    root = write(tmp_path / "root")
    (root / "mine.txt").write_text("one\n")
    (tmp_path / "mine.txt").write_text("two\n")
    (tmp_path / "other.txt").write_text("two\n")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("pascal5i", str(root), "mine.txt").names == ("one",)
    assert open_dataset("pascal5i", str(root), "other.txt").names == ("two",)


def test_areas_read_the_images_header_alone_and_turn_it_as_exif_says(tmp_path):
    root = write(tmp_path, names=("one",))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 3 x 4 pixels stored, 4 x 3 shown
    photo = root / "JPEGImages" / "one.jpg"
    Image.new("RGB", (3, 4), (10, 20, 30)).save(photo, exif=exif)
    found = open_dataset("pascal5i", str(root))
    assert found.image("one").size == found.image_size("one") == (4, 3)
    photo.write_bytes(photo.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"one\.jpg: (truncated|broken)"):
        found.image("one")
    assert datasets.areas(found, "one") == {1: 3, 20: 3}


def test_options_of_other_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"dataset\.folds: expected it unset, pascal5i takes no setting of its own"):
        open_dataset("pascal5i", str(write(tmp_path)), folds="consecutive", year=None)
    with pytest.raises(ValueError, match=r"dataset\.year: .* folder takes dataset\.num_folds; got 2014"):
        open_dataset("folder", str(tmp_path), year=2014)


def test_real_photos():
    root = DATA / "voc2012"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    found = open_dataset("pascal5i", str(root))
    assert len(found.names) == 335
    name = "2007_000033"
    assert found.mask(name).dtype == np.uint8
    assert set(np.unique(found.mask(name))) == {0, 1, 255}  # a palette PNG: indices, not colours
    assert datasets.areas(found, name)[1] == (found.binary_mask(name, 1) == 1).sum() > 2048


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
    refuses(
        "expected one of coco20i, folder, fss1000, pascal5i, scenes, got 'pascal'; did you mean 'pascal5i'?",
        "pascal",
        tmp_path,
    )
    refuses(
        f"expected {tmp_path / 'classes.json'}, written by the render stage; check dataset.root", "scenes", tmp_path
    )
    refuses("expected JPEGImages and SegmentationClassAug or SegmentationClass in", "pascal5i", tmp_path)
    write(tmp_path)
    refuses(
        f"expected a list file of image names at {tmp_path / 'none.txt'} or none.txt; check dataset.list",
        "pascal5i",
        tmp_path,
        "none.txt",
    )
    (tmp_path / "empty.txt").write_text("\n")
    refuses("one a line, got an empty file", "pascal5i", tmp_path, "empty.txt")


def test_masks_of_other_sizes_or_classes_are_refused(tmp_path):
    found = open_dataset("pascal5i", str(write(tmp_path / "a", mask=MASK[:, :3].copy())))
    with pytest.raises(ValueError, match=r"one: expected a mask of 4x3 like its image, got \(3, 3\)"):
        datasets.areas(found, "one")
    found = open_dataset("pascal5i", str(write(tmp_path / "b", mask=MASK + (MASK == 20))))
    with pytest.raises(ValueError, match=r"one: expected class indices 0\.\.20 and 255, got \[21\]; write void as 255"):
        datasets.areas(found, "one")
    (tmp_path / "b" / "JPEGImages" / "two.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected an image at .*two\.jpg: No such file.*check dataset\.root"):
        datasets.areas(found, "two")
    Image.new("RGB", (4, 3), (9, 0, 0)).save(tmp_path / "b" / "SegmentationClassAug" / "one.png")
    with pytest.raises(ValueError, match="one channel of class indices, got colours"):
        found.mask("one")
