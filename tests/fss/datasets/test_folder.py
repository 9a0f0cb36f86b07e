"""Anybody's images, masks and class names."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fss import datasets
from fss.datasets import open_dataset
from tests.places import SHARED

DATA = SHARED / "data"
MASK = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
COLOURS = {"cat": [200, 0, 0], "dog": [0, 0, 200], "void": [255, 255, 255]}
PAINTED = np.array([[[0, 0, 0], [200, 0, 0], [0, 0, 200]], [[255, 255, 255], [0, 0, 200], [0, 0, 200]]], np.uint8)


def write(root, mask=MASK, names=("a.jpg", "b.PNG", "sub/my photo.v2.webp"), classes="cat\ndog\n"):
    for name in names:
        photo = root / "images" / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10, 20, 30)).save(photo)
        target = (root / "masks" / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(target)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def first_areas(root, list_file=None, **options):
    found = open_dataset("folder", str(root), list_file, **options)
    return datasets.areas(found, found.names[0])


def refuses(text, root, list_file=None, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        first_areas(root, list_file, **options)


def test_images_of_any_kind_that_have_a_mask(tmp_path):
    write(tmp_path)
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "unlabelled.jpg")
    found = open_dataset("folder", str(tmp_path))
    assert found.names == ("a", "b", "sub/my photo.v2")
    assert found.class_names == ("cat", "dog")
    assert found.folds == ((1, 2),)
    for name in found.names:
        assert found.image(name).size == (3, 2)
        assert datasets.areas(found, name) == {1: 1, 2: 3}
    assert found.binary_mask("a", 2).tolist() == [[0, 0, 1], [255, 1, 1]]
    (tmp_path / "mine.txt").write_text("sub/my photo.v2.webp\nimages/b.PNG masks/b.png\nsub/my photo.v2\n")
    assert open_dataset("folder", str(tmp_path), "mine.txt").names == ("sub/my photo.v2", "b")


def test_palette_masks_are_indices(tmp_path):
    palette = Image.fromarray(MASK, mode="P")
    palette.putpalette([i // 3 for i in range(768)])
    found = open_dataset("folder", str(write(tmp_path, mask=palette)))
    np.testing.assert_array_equal(found.mask("a"), MASK)


def test_folds_are_equal_consecutive_parts(tmp_path):
    write(tmp_path, classes="".join(f"c{i}\n" for i in range(6)))
    assert open_dataset("folder", str(tmp_path), num_folds=3).folds == ((1, 2), (3, 4), (5, 6))
    refuses(
        "expected a number of folds that divides the 6 classes, got 4; check dataset.num_folds", tmp_path, num_folds=4
    )
    refuses("got 0; check dataset.num_folds", tmp_path, num_folds=0)


def test_more_than_254_classes_have_void_65535(tmp_path):
    wide = np.array([[0, 255, 300], [65535, 65535, 300]], np.uint16)
    write(tmp_path, mask=wide, classes="".join(f"c{i}\n" for i in range(300)))
    found = open_dataset("folder", str(tmp_path))
    assert datasets.areas(found, "a") == {255: 1, 300: 2}
    assert found.binary_mask("a", 255).tolist() == [[0, 1, 0], [255, 255, 0]]
    write(tmp_path / "few", mask=wide)
    refuses("a: expected class indices 0..2 and 255, got [300, 65535]; is it a mask of another", tmp_path / "few")


@pytest.mark.parametrize("form", ["classes.json", "colours.json", "classes.txt and colours.json"])
def test_colour_masks_are_mapped_where_colours_are_given(tmp_path, form):
    write(tmp_path, mask=PAINTED, classes="cat\ndog\n" if "txt" in form else None)
    (tmp_path / form.split(" ")[-1]).write_text(json.dumps(COLOURS))
    found = open_dataset("folder", str(tmp_path))
    assert found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(found.mask("a"), MASK)
    Image.fromarray(PAINTED).quantize(8).save(tmp_path / "masks" / "b.png")  # a palette of those colours
    np.testing.assert_array_equal(found.mask("b"), MASK)
    Image.fromarray(PAINTED // 2).save(tmp_path / "masks" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: expected the colours of the classes, got also \[\(0, 0, 100\)"):
        found.mask("b")


def test_colour_masks_without_colours_are_refused(tmp_path):
    refuses(
        "a.png: expected one channel of class indices, got colours; say whose they are in colours.json",
        write(tmp_path, mask=PAINTED),
    )


@pytest.mark.parametrize("value", [["cat", "dog"], {"2": "dog", "1": "cat"}])
def test_names_in_json(tmp_path, value):
    write(tmp_path, classes=None)
    (tmp_path / "classes.json").write_text(json.dumps(value))
    assert open_dataset("folder", str(tmp_path)).class_names == ("cat", "dog")


BAD_CLASSES = {
    "not JSON": ("classes.json", "cat", "expected JSON"),
    "a gap": ("classes.json", '{"1": "cat", "3": "dog"}', "expected the indices 1, 2, ... of the classes, got 1, 3"),
    "numbers": ("classes.json", "[1, 2]", "expected a list of names"),
    "empty": ("classes.json", "{}", "expected a list of names"),
    "doubled": ("classes.txt", "cat\ncat\n", "expected different names of classes, got 1 doubled"),
    "background": ("classes.txt", "cat\nbackground\n", "the first is index 1; leave background out"),
    "no class": ("classes.txt", "_background_\n", "the first is index 1; leave background out"),
    "one line": ("classes.txt", "cat, dog\n", "expected one name of a class a line, got 'cat, dog'"),
    "labelmap": ("labelmap.txt", "cat\n", "expected lines of name:r,g,b::, got 'cat'"),
    "half a colour": ("classes.json", '{"cat": [1, 2]}', "expected [r, g, b] of 0..255 for 'cat', got [1, 2]"),
    "black": ("classes.json", '{"cat": [0, 0, 0]}', "expected different colours, also from the background's"),
    "list of colours": ("colours.json", "[[1, 2, 3]]", "expected a list of names"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_bad_class_files_are_named(tmp_path, case):
    name, text, said = BAD_CLASSES[case]
    write(tmp_path, classes=None)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        open_dataset("folder", str(tmp_path))
    assert str(tmp_path / name) in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    refuses(f"expected the names of the classes in {tmp_path / 'classes.txt'}, one a line, or", tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog")
    refuses(f"expected images in {tmp_path / 'images'}, found none; check dataset.root", tmp_path)
    write(tmp_path)
    (tmp_path / "mine.txt").write_text("c\n")
    refuses("expected names of images below root/images in dataset.list, got 'c'", tmp_path, "mine.txt")
    (tmp_path / "mine.txt").write_text("a\n")
    (tmp_path / "masks" / "a.png").unlink()
    refuses(f"expected {tmp_path / 'masks' / 'a'}.png, the mask of an image of mine.txt", tmp_path, "mine.txt")
    (tmp_path / "colours.json").write_text('{"cat": [1, 2, 3]}')
    refuses("expected a colour for every class, 'dog' has none", tmp_path)
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "b.jpg")
    (tmp_path / "colours.json").unlink()
    refuses("expected one image for each mask, got ", tmp_path)


def test_real_photos_of_coco():
    root = DATA / "coco_free"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    found = open_dataset("folder", str(root), num_folds=4)
    assert (len(found.names), len(found.class_names)) == (136, 80)
    rows = [line.split("\t") for line in (root / "index.tsv").read_text().splitlines()[1:]]
    for row in rows[::9]:  # the table names the classes that each mask shows
        assert sorted(datasets.areas(found, row[0])) == [int(c) for c in row[-1].split(",") if c]
