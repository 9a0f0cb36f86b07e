"""Boxes and points become masks: what was marked is kept, and the thing is found where it stands out."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.segmenter import Segmenter, marks

THING = np.zeros((96, 128), np.uint8)
THING[30:70, 40:90] = 1


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    extractor = Extractor(backbones.build("small", seed=1), size=96)
    network = extractor.backbone
    return Segmenter(heads.build("smoothed", {}, network.channels, corners=network.corners).eval(), extractor, {})


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """A red thing on blue ground."""
    noise = np.random.default_rng(0).integers(0, 30, (96, 128, 3))
    return Image.fromarray((noise + np.where(THING[..., None] == 1, (200, 40, 40), (40, 40, 200))).astype(np.uint8))


def iou(mask: np.ndarray) -> float:
    return float((mask & THING).sum() / (mask | THING).sum())


def test_a_loose_box_is_filled_by_the_thing(segmenter, image):
    mask = marks.of_box(segmenter, image, [25, 15, 105, 85])
    assert (mask.dtype, mask.shape) == (np.uint8, (96, 128))
    assert iou(mask) > 0.75 > THING.sum() / (80 * 70)
    assert not mask[:15].any()
    assert not mask[:, 105:].any()


def test_a_box_is_cut_at_the_images_border(segmenter, image):
    mask = marks.of_box(segmenter, image, [25, 15, 500, 85])
    assert mask.any()
    assert not mask[:, :25].any()


def test_a_point_on_the_thing_finds_it_and_points_keep_what_they_say(segmenter, image):
    disc = marks._seeds(THING.shape, [[60, 50, 1]]) == 1
    assert iou(marks.of_points(segmenter, image, [[60, 50, 1]])) > 0.35 > 10 * iou(disc.astype(np.uint8))
    mask = marks.of_points(segmenter, image, [[60, 50, 1], [2, 2, 1], [70, 60, 0]])
    assert (mask[50, 60], mask[2, 2], mask[60, 70]) == (1, 1, 0)
    assert set(np.unique(mask)) == {0, 1}


def test_the_box_itself_is_the_mask_where_nothing_is_seen(segmenter, image, monkeypatch):
    monkeypatch.setattr(Segmenter, "segment", lambda *_, **__: np.zeros((96, 128), np.uint8))
    assert marks.of_box(segmenter, image, [10, 20, 30, 50]).sum() == 20 * 30


@pytest.mark.parametrize("box", [[10, 10, 10, 50], [200, 0, 220, 50], [0, 0, 128, 96], [-9, -9, -1, -1]])
def test_boxes_without_an_inside_or_an_outside_are_refused(segmenter, image, box):
    with pytest.raises(ValueError, match=r"expected a box \[left,top,right,bottom\] within 128x96 that leaves some"):
        marks.of_box(segmenter, image, box)


@pytest.mark.parametrize("box", [[1, 2, 3], [[1, 2, 3, 4]], [0, 0, np.nan, 5], [0, 0, np.inf, 5], "abcd", None, []])
def test_what_is_no_box_is_refused_by_what_was_expected(segmenter, image, box):
    with pytest.raises(ValueError, match=r"expected a box of four numbers \[left,top,right,bottom\], got"):
        marks.of_box(segmenter, image, box)


def test_marks_may_be_arrays_or_tensors(segmenter, image):
    box, points = [25, 15, 105, 85], [[60, 50, 1], [2, 2, 0]]
    for kind in (np.array, torch.tensor):
        np.testing.assert_array_equal(marks.of_box(segmenter, image, kind(box)), marks.of_box(segmenter, image, box))
        np.testing.assert_array_equal(
            marks.of_points(segmenter, image, kind(points)), marks.of_points(segmenter, image, points)
        )


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([[5, 5, 0]], "one on it, got"),
        ([], "one on it, got"),
        ([[5, 5, 1], [6, 6, 2]], r"points \[x,y,side\] with side 1 on the thing or 0 beside it"),
        ([[128, 5, 1]], "expected points within 128x96"),
        ([[5, -1, 1]], "expected points within 128x96"),
        ([[5, 5]], "expected points"),
        ([5, 5, 1], "expected points"),
        ([[5, 5, 1], [5, 5]], "expected points"),
        ([[np.inf, 5, 1]], "expected points"),
        ([["a", 5, 1]], "expected points"),
        (None, "expected points"),
    ],
)
def test_points_that_say_nothing_are_refused(segmenter, image, points, told):
    with pytest.raises(ValueError, match=told):
        marks.of_points(segmenter, image, points)
