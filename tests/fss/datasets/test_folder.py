"""Anybody's images, masks and class names."""

import json
import os
import re
import unicodedata

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
    refuses("a: expected class indices 0..2 and 255, got [300, 65535]; write void as 255", tmp_path / "few")


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


def numbered(root, **options):
    """The areas of each image."""
    found = open_dataset("folder", str(root), **options)
    return [datasets.areas(found, name) for name in found.names]


def place(root, name, mask, **options):
    """A mask and, if there is none, its photo."""
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    target = root / "masks" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, **options)


WHITE = np.zeros((16, 24), np.uint8)
WHITE[4:12, 6:20] = 255


def one_class(root, names=("a", "b"), size=(24, 16)):
    write(root, names=(), classes="cat\n")
    (root / "images").mkdir(parents=True)
    for name in names:
        Image.new("RGB", size, (10, 20, 30)).save(root / "images" / f"{name}.jpg")
    return root


@pytest.mark.parametrize("kind", ["grey", "RGB", "alpha", "jpg", "gif", "tif", "suffix", "upper", "photo.jpg"])
def test_black_and_white_masks_of_one_class(tmp_path, caplog, kind):
    root = one_class(tmp_path)
    rgb = Image.fromarray(np.repeat(WHITE[..., None], 3, 2))
    names = {"jpg": "{}.jpg", "gif": "{}.gif", "tif": "{}.tif", "suffix": "{}_mask.png", "upper": "{}.PNG",
             "photo.jpg": "{}.jpg.png"}  # fmt: skip
    masks = {"RGB": rgb, "gif": rgb, "alpha": Image.fromarray(np.dstack([np.full((16, 24, 3), 255, np.uint8), WHITE])),
             "tif": Image.fromarray(WHITE / np.float32(255) * np.float32(0.97))}  # fmt: skip
    for name in ("a", "b"):
        place(root, names.get(kind, "{}.png").format(name), masks.get(kind, Image.fromarray(WHITE)))
    assert numbered(root) == [{1: 8 * 14}] * 2
    assert ("255 is taken for 'cat', not for void" in caplog.text) == (kind not in ("jpg", "alpha", "tif"))


def test_255_is_void_where_some_mask_holds_1(tmp_path, caplog):
    root = one_class(tmp_path)
    place(root, "a.png", WHITE)
    place(root, "b.png", WHITE // 255)
    assert numbered(root) == [{}, {1: 8 * 14}]
    assert "255 is taken" not in caplog.text


def test_other_numbers_than_the_one_class_are_refused(tmp_path):
    root = one_class(tmp_path)
    for name in ("a", "b"):
        place(root, f"{name}.png", WHITE // 255 * np.uint8(15))
    refuses("a: expected class indices 0..1 and 255, got [15]; write void as 255", root)


def test_several_classes_in_0_and_255_alone_are_refused(tmp_path):
    root = one_class(tmp_path)
    (root / "classes.txt").write_text("cat\ndog\n")
    for name in ("a", "b"):
        place(root, f"{name}.png", WHITE)
    refuses("got 0 and 255 alone, which are background and void; paint the classes as 1..2, or name one class", root)


def test_jpeg_masks_of_several_classes_are_refused(tmp_path):
    root = one_class(tmp_path)
    (root / "classes.txt").write_text("cat\ndog\n")
    for name in ("a", "b"):
        place(root, f"{name}.jpg", WHITE // 255)
    refuses("expected class indices, got a format that changes numbers a little; save the mask as PNG", root)


def test_palettes_have_one_order_in_a_set(tmp_path):
    root = one_class(tmp_path)
    (root / "classes.txt").write_text("cat\ndog\n")
    for name, colours in (("a", (0, 0, 0, 200, 0, 0, 0, 0, 200)), ("b", (0, 0, 0, 0, 0, 200, 200, 0, 0))):
        mask = Image.fromarray(WHITE // 255 + WHITE // 255 * (np.arange(24) > 12).astype(np.uint8), mode="P")
        mask.putpalette(colours)
        place(root, f"{name}.png", mask)
    found = open_dataset("folder", str(root))
    assert datasets.areas(found, "a") == {1: 8 * 7, 2: 8 * 7}
    with pytest.raises(ValueError, match=r"b\.png: expected entry 1 of its palette to be \(200, 0, 0\) as in .*a\.png"):
        datasets.areas(found, "b")
    mask = Image.fromarray(WHITE // 255 * np.uint8(2), mode="P")
    mask.putpalette((255, 255, 255, 200, 0, 0, 0, 0, 0))
    place(root, "a.png", mask)
    refuses("expected black, the background, as entry 0 of its palette, got 2; say whose colours they are", root)


def test_masks_without_a_photo_are_named(tmp_path, caplog):
    root = one_class(tmp_path)
    for name in ("a.png", "b-seg.png", "c.png"):
        place(root, name, WHITE // 255)
    assert numbered(root) == [{1: 8 * 14}] * 2
    assert "1 masks have no image: c.png ...; left out" in caplog.text
    place(root, "a_mask.png", WHITE // 255)
    with pytest.raises(ValueError, match=r"expected one mask of a, got .*a\.png and .*a_mask\.png; take one away"):
        open_dataset("folder", str(root))


def test_a_mask_on_the_stored_pixels_of_a_turned_photo(tmp_path):
    root = one_class(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 16)).save(root / "images" / "a.jpg", exif=exif)
    place(root, "a.png", WHITE // 255)
    place(root, "b.png", WHITE // 255)
    assert numbered(root) == [{1: 8 * 14}] * 2
    found = open_dataset("folder", str(root))
    np.testing.assert_array_equal(found.mask("a"), np.rot90(WHITE // 255, -1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "_background_\ncat\ndog\n"),
        ("classes.txt", "__ignore__\n_background_\ncat\ndog\n"),
        ("classes.txt", "0: background\n1: cat\n2: dog\n"),
        ("classes.txt", "1 cat\n2\tdog\n"),
        ("classes.json", '["background", "cat", "dog"]'),
        ("classes.json", '{"0": "background", "1": "cat", "2": "dog"}'),
    ],
)
def test_a_background_in_front_of_the_classes_is_index_0(tmp_path, name, text):
    root = write(tmp_path, classes=None)
    (root / name).write_text(text)
    found = open_dataset("folder", str(root))
    assert found.class_names == ("cat", "dog")
    assert datasets.areas(found, "a") == {1: 1, 2: 3}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 cat\n1 dog\n", r"expected the indices 1, 2, \.\.\. of the classes, got 0, 1"),
        ("cat;dog\n", "expected one name of a class a line, got 'cat;dog'"),
        ("\n", "expected names in .*, one a line, got an empty file"),
    ],
)
def test_classes_that_are_listed_in_another_way_are_refused(tmp_path, text, told):
    root = write(tmp_path, classes=None)
    (root / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=told):
        open_dataset("folder", str(root))


def test_the_labelmap_of_cvat(tmp_path):
    root = write(tmp_path, mask=PAINTED, classes=None)
    lines = (
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cat:200,0,0::",
        "dog:0,0,200::",
        "void:255,255,255::",
    )
    (root / "labelmap.txt").write_text("\n".join(lines))
    found = open_dataset("folder", str(root))
    assert found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(found.mask("a"), MASK)


def test_blended_colours_are_refused_with_the_remedy(tmp_path):
    root = write(tmp_path, mask=Image.fromarray(PAINTED).resize((3, 2)).resize((9, 6), Image.Resampling.BILINEAR))
    (root / "colours.json").write_text(json.dumps(COLOURS))
    refuses("% of the pixels; see colours.json; resizing and JPEG make colours in between: save masks without", root)


def test_hidden_files_are_neither_images_nor_masks(tmp_path):
    """macOS's notes and Jupyter's copies lie in every zip that came from there."""
    write(tmp_path)
    for name in ("images/._a.jpg", "masks/._a.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7Mac OS X")
    for name, copied in (("images", "a.jpg"), ("masks", "a.png")):
        copies = tmp_path / name / ".ipynb_checkpoints"
        copies.mkdir()
        (copies / copied).write_bytes((tmp_path / name / copied).read_bytes())
    assert open_dataset("folder", str(tmp_path)).names == ("a", "b", "sub/my photo.v2")


def test_a_name_finds_its_mask_and_its_line_however_its_accents_are_written(tmp_path):
    apart, together = (unicodedata.normalize(form, "Bäume.jpg") for form in ("NFD", "NFC"))
    write(tmp_path, names=[apart])
    (tmp_path / "images" / apart).rename(tmp_path / "images" / together)
    (tmp_path / "list.txt").write_text(f"{apart}\n", "utf-8")
    for list_file in (None, "list.txt"):
        assert open_dataset("folder", str(tmp_path), list_file).names == (together.removesuffix(".jpg"),)


def test_class_names_of_windows_are_read_and_of_unknown_encoding_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "classes.txt").write_text("Käfer\r\nMüll\r\n", "utf-16")
    assert open_dataset("folder", str(tmp_path)).class_names == ("Käfer", "Müll")
    (tmp_path / "classes.txt").write_text("Käfer\nMüll\n", "latin-1")
    refuses("classes.txt: expected text in UTF-8, got the byte 0xe4 at 1; save it as UTF-8", tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path):
    write(tmp_path, names=[os.fsdecode(b"K\xe4fer.jpg")])
    refuses(r"expected names of files in UTF-8 in " + f"{tmp_path}/images, got K\\xe4fer; rename it", tmp_path)
