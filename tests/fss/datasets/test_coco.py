"""COCO-20i: folds, class masks from PNGs of several layouts and from the instances JSON."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from fss import datasets
from fss.datasets import open_dataset
from fss.datasets.parts import coco, coco_names, instances

WIDTH, HEIGHT = 8, 6
STEM = "COCO_val2014_000000000042"


def box(left, top, right, bottom):
    """Polygon of the pixels left..right-1, top..bottom-1."""
    return [left, top, right, top, right, bottom, left, bottom]


def pixels(*boxes):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def counts(mask):
    """Uncompressed RLE, by hand: lengths of runs down the columns, of zeros first."""
    flat, runs, value = mask.T.reshape(-1), [0], 0
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": runs}


def compressed(mask):
    found = rle.encode(np.asfortranarray(mask))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def annotation(category, segmentation, crowd=0, image=42):
    return {"id": 7, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def write_json(root, annotations, part="val2014", stems=(STEM, "COCO_val2014_000000000043"), size=(WIDTH, HEIGHT)):
    """An instances JSON of images 42, 43, ..., whose photos are on disk."""
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed = []
    for i, stem in enumerate(stems, 42):
        Image.new("RGB", size, (i, 20, 30)).save(root / part / f"{stem}.jpg")
        listed.append({"id": i, "file_name": f"{stem}.jpg", "height": size[1], "width": size[0]})
    categories = [{"id": c, "name": coco_names.COCO_CLASSES[i - 1]} for c, i in coco_names.CLASS_OF.items()]
    document = {"images": listed, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(document))
    return path


def test_folds_in_both_conventions(tmp_path):
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    for convention, fold_of in (("interleaved", lambda c: (c - 1) % 4), ("consecutive", lambda c: (c - 1) // 20)):
        found = open_dataset("coco20i", str(tmp_path), folds=convention)
        assert found.folds == tuple(tuple(c for c in range(1, 81) if fold_of(c) == i) for i in range(4))
    assert open_dataset("coco20i", str(tmp_path)).folds == coco.fold_classes("interleaved")
    with pytest.raises(ValueError, match=r"dataset\.folds: expected interleaved or consecutive, got 'pfenet'"):
        open_dataset("coco20i", str(tmp_path), folds="pfenet")


def test_category_ids_become_1_to_80_in_id_order():
    known = {1: "person", 11: "fire hydrant", 13: "stop sign", 44: "bottle", 67: "dining table", 90: "toothbrush"}
    assert {category: coco_names.COCO_CLASSES[coco_names.CLASS_OF[category] - 1] for category in known} == known
    assert sorted(coco_names.CLASS_OF.values()) == list(range(1, 81))
    assert len(coco_names.COCO_CLASSES) == len(set(coco_names.COCO_CLASSES)) == 80


def test_masks_from_the_json(tmp_path):
    whole = pixels((0, 0, WIDTH, HEIGHT))
    write_json(
        tmp_path,
        [
            annotation(1, [box(0, 0, 3, 2), box(5, 3, 7, 6)]),  # two parts of one person
            annotation(90, [box(2, 1, 4, 4)]),  # later, so over the person
            annotation(3, counts(whole), crowd=1),
            annotation(18, counts(pixels((7, 0, 8, 2)))),
            annotation(44, compressed(pixels((0, 5, 2, 6)))),
            annotation(2, [[1, 1, 5, 5]]),  # two points: no area, and no box either
            annotation(2, [box(0, 0, 8, 6)], image=99),  # an image that is not listed
            annotation(2, counts(whole), crowd=1, image=43),
        ],
    )
    found = open_dataset("coco20i", str(tmp_path))
    assert found.names == (f"val2014/{STEM}",)  # the other image shows a crowd alone
    mask = found.mask(found.names[0])
    assert mask.dtype == np.uint8
    assert mask.tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 17],
        [1, 1, 80, 80, 0, 0, 0, 17],
        [0, 0, 80, 80, 0, 0, 0, 0],
        [0, 0, 80, 80, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [40, 40, 0, 0, 0, 1, 1, 0],
    ]
    assert datasets.areas(found, found.names[0]) == {1: 11, 17: 2, 40: 2, 80: 6}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 17, 90]),
            st.lists(st.lists(st.floats(0, 20).map(lambda v: round(v, 1)), min_size=6, max_size=6), min_size=1),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_masks_are_those_of_pycocotools(tmp_path_factory, objects):
    root = tmp_path_factory.mktemp("coco")
    listed = [annotation(c, polygons, int(crowd)) | {"id": i} for i, (c, polygons, crowd) in enumerate(objects, 1)]
    path = write_json(root, listed, size=(21, 19))
    reference = COCO(str(path))
    expected = np.zeros((19, 21), np.uint8)
    for one in reference.loadAnns(reference.getAnnIds(imgIds=[42])):
        if not one["iscrowd"]:
            expected[reference.annToMask(one) == 1] = sorted(reference.getCatIds()).index(one["category_id"]) + 1
    drawn = instances.load_instances(path)
    assert (STEM in drawn) == any(not crowd for *_, crowd in objects)
    if STEM in drawn:
        np.testing.assert_array_equal(instances.paint(drawn[STEM]), expected)


@pytest.mark.parametrize(
    ("layout", "part", "stem"),
    [
        ("annotations/val2014", "val2014", STEM),
        ("val2014gt", "val2014", STEM),
        ("val", "val2014", STEM),
        ("annotations/coco_masks/instance_val2017", "val2017", "000000000042"),
    ],
)
def test_mask_pngs_go_before_the_json(tmp_path, layout, part, stem):
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])], part=part, stems=(stem, "000000000043"))
    (tmp_path / layout).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels((1, 1, 3, 3)) * 62).save(tmp_path / layout / f"{stem}.png")
    for hidden in (tmp_path / layout / f"._{stem}.png", tmp_path / part / f"._{stem}.jpg"):
        hidden.write_bytes(b"\0\5\x16\7Mac OS X")
    found = open_dataset("coco20i", str(tmp_path), year=int(part[-4:]))
    assert found.names == (f"{part}/{stem}",)
    assert datasets.areas(found, found.names[0]) == {62: 4}
    assert found.image(found.names[0]).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "line",
    [
        f"val2014/{STEM}.jpg val/{STEM}.png",
        f"../data/COCO2014/val2014/{STEM}.jpg",
        STEM,
        f"annotations/val2014/{STEM}.png",
    ],
)
def test_lists_of_every_code_base(tmp_path, line):
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    (tmp_path / "mine.txt").write_text(f"{line}\n")
    found = open_dataset("coco20i", str(tmp_path), "mine.txt")
    assert found.names == (f"val2014/{STEM}",)
    assert datasets.areas(found, found.names[0]) == {1: 4}


def test_a_list_may_mix_both_parts(tmp_path):
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    write_json(tmp_path, [annotation(2, [box(0, 0, 3, 2)])], part="train2014", stems=("COCO_train2014_000000000001",))
    (tmp_path / "mine.txt").write_text(f"COCO_train2014_000000000001\n{STEM}\n")
    found = open_dataset("coco20i", str(tmp_path), "mine.txt")
    assert [datasets.areas(found, name) for name in found.names] == [{2: 6}, {1: 4}]
    (tmp_path / "mine.txt").write_text("train2017/000000000001.jpg\n")
    with pytest.raises(ValueError, match=r"expected images in .*train2017; check dataset\.root and dataset\.list"):
        open_dataset("coco20i", str(tmp_path), "mine.txt")


def refuses(text, root, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        open_dataset("coco20i", str(root), **options)


def test_the_year_follows_from_the_folders_or_is_asked_for(tmp_path):
    refuses(f"expected COCO's images in {tmp_path}/val2014 or val2017; check dataset.root", tmp_path)
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    refuses(f"expected COCO's images in {tmp_path}/val2017", tmp_path, year=2017)
    refuses("dataset.year: expected 2014 or 2017, got 2015", tmp_path, year=2015)
    write_json(tmp_path, [annotation(2, [box(0, 0, 2, 2)])], part="val2017", stems=("000000000042",))
    refuses("holds 2014 and 2017: set dataset.year=2014 or dataset.year=2017", tmp_path)
    assert open_dataset("coco20i", str(tmp_path), year=2017).names == ("val2017/000000000042",)


def test_what_is_missing_is_named(tmp_path):
    path = write_json(tmp_path, [])
    refuses(f"expected the images of {path} in {tmp_path / 'val2014'}, found none", tmp_path)
    path.unlink()
    refuses(f"expected mask PNGs in {tmp_path / 'annotations' / 'val2014'} (or val2014gt,", tmp_path)


BAD = {
    "no key": ("no segmentation, left out", ...),
    "null": ("no segmentation, left out", None),
    "empty": ("no segmentation, left out", []),
    "a box": ("no polygon of three points, left out", [[1, 1, 5, 5]]),
    "an odd polygon": ("malformed (a polygon of an odd number of coordinates), left out", [[1, 1, 5, 1, 5, 5, 1]]),
    "not finite": ("malformed (coordinates that are not finite), left out", [[1, 1, 5, 1, float("nan"), 5]]),
    "far away": ("malformed (coordinates far from the image), left out", [[9e9, 9e9] * 3]),
    "without an end": ("malformed (an outline of more than 14000 pixels), left out", [[0, 0, 8e3, 6e3, 0, 6e3]]),
    "text": ("malformed (neither polygons nor RLE but str), left out", "broken"),
    "text as polygon": ("malformed (", ["abcdef"]),
    "size of another image": (
        "malformed (RLE of height x width [8, 6] on an image of 6x8), left out",
        {"size": [WIDTH, HEIGHT], "counts": [48]},
    ),
    "runs too long": ("malformed (RLE counts of 49 pixels instead of 48", {"size": [6, 8], "counts": [40, 9]}),
    "runs below zero": ("malformed (RLE counts that are no whole numbers", {"size": [6, 8], "counts": [50, -2]}),
    "no RLE": ("malformed ('counts'), left out", {"size": [6, 8]}),
    "damaged RLE": ("malformed (RLE counts", {"size": [6, 8], "counts": "zzzz"}),
    "foreign RLE": ("malformed (RLE counts with '!'), left out", {"size": [6, 8], "counts": "!"}),
}


def first_mask(root):
    found = open_dataset("coco20i", str(root))
    return found.mask(found.names[0])


@pytest.mark.parametrize("case", BAD)
def test_annotations_without_a_shape_are_counted_and_named(tmp_path, caplog, case):
    """Nothing malformed reaches the C library; the set is used without it."""
    text, segmentation = BAD[case]
    bad = annotation(1, segmentation) | {"id": 13}
    if segmentation is ...:
        del bad["segmentation"]
    path = write_json(tmp_path, [bad, annotation(18, [box(0, 0, 2, 2)])])
    assert datasets.areas(open_dataset("coco20i", str(tmp_path)), f"val2014/{STEM}") == {17: 4}
    assert f"{path}: 1 of 2 annotations, {text}" in caplog.text
    assert "ids 13" in caplog.text


def test_a_flat_polygon_is_read_and_named(tmp_path, caplog):
    write_json(tmp_path, [annotation(1, box(0, 0, 2, 3))])
    assert first_mask(tmp_path).sum() == 6
    assert "1 of 1 annotations, a flat list of coordinates, read as one polygon: ids 7" in caplog.text


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=48, max_size=48))
def test_compressed_runs_are_those_of_pycocotools(bits):
    mask = np.array(bits, np.uint8).reshape(HEIGHT, WIDTH)
    assert list(instances._unpacked(compressed(mask)["counts"])) == counts(mask)["counts"]


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_classes_are_those_that_the_file_names(tmp_path, caplog):
    path = write_json(tmp_path, [annotation(0, [box(0, 0, 2, 2)]), annotation(1, [box(4, 0, 6, 3)])])
    rewrite(path, categories=[{"id": 0, "name": "Cat"}, {"id": 1, "name": "dog"}])
    assert datasets.areas(open_dataset("coco20i", str(tmp_path)), f"val2014/{STEM}") == {16: 4, 17: 6}
    assert "categories have other ids than COCO's, read by name: 0 Cat, 1 dog" in caplog.text
    instances.load_instances.cache_clear()
    rewrite(path, categories=[{"id": 0, "name": "wheat"}, {"id": 1, "name": "dog"}])
    refuses(
        "expected COCO's 80 categories, got wheat; a set with classes of its own is read by dataset=folder", tmp_path
    )


def test_categories_that_are_not_listed_are_refused(tmp_path):
    path = write_json(tmp_path, [annotation(91, [box(0, 0, 2, 2)])])
    refuses(f"{path}: expected COCO's 80 category ids, got 91 in annotation 7", tmp_path)


def test_an_image_that_is_listed_twice_is_one(tmp_path, caplog):
    path = write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)]), annotation(18, [box(4, 0, 6, 3)], image=50)])
    listed = json.loads(path.read_text())["images"]
    rewrite(path, images=[*listed, listed[0] | {"id": 50}])
    assert datasets.areas(open_dataset("coco20i", str(tmp_path)), f"val2014/{STEM}") == {1: 4, 17: 6}
    assert f"1 images are listed twice and are one each: {STEM}.jpg" in caplog.text
    instances.load_instances.cache_clear()
    rewrite(path, images=[*listed, listed[0] | {"id": 50, "file_name": f"other/{STEM}.jpg"}])
    refuses("expected images of different names, got", tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg"])
def test_photos_have_any_extension(tmp_path, suffix):
    write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    photo = tmp_path / "val2014" / f"{STEM}.jpg"
    Image.open(photo).save(photo.with_suffix(suffix))
    photo.unlink()
    found = open_dataset("coco20i", str(tmp_path))
    assert found.image(found.names[0]).size == (WIDTH, HEIGHT)
    assert datasets.areas(found, found.names[0]) == {1: 4}


def test_shapes_on_the_stored_pixels_of_a_turned_photo_are_turned(tmp_path):
    write_json(tmp_path, [annotation(1, [box(0, 0, 3, 2)])])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "val2014" / f"{STEM}.jpg", exif=exif)
    found = open_dataset("coco20i", str(tmp_path))
    assert datasets.areas(found, found.names[0]) == {1: 6}
    np.testing.assert_array_equal(first_mask(tmp_path), np.rot90(pixels((0, 0, 3, 2)), -1))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"images": []}', b"\xff\xfe\x00"])
def test_other_json_is_refused(tmp_path, content):
    path = write_json(tmp_path, [])
    path.write_bytes(content)
    refuses(str(path), tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda document: document.pop("annotations"), "an entry without 'annotations'"),
        (lambda document: document["images"][0].pop("height"), "an entry without 'height'"),
        (lambda document: document["images"][0].update(height=float("inf")), "entries of another form"),
        (lambda document: document.update(images=None), "entries of another form"),
        (lambda document: document["annotations"].insert(0, "x"), "entries of another form"),
    ],
)
def test_a_json_of_another_form_is_called_so(tmp_path, damage, told):
    path = write_json(tmp_path, [annotation(1, [box(0, 0, 2, 2)])])
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"expected COCO's instances with images and annotations, got {told}$"):
        instances.load_instances(path)
