"""Borders along the photo's: a coarse answer gets the thing's own outline, and is never lost."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fss import grid
from fss.segmenter import edges
from tests.fss.conftest import noise_image


def disc(size, radius):
    """A red disc in the middle of a green photo, and its mask."""
    photo, mask = Image.new("RGB", size, (20, 120, 40)), Image.new("L", size)
    middle = (size[0] / 2 - radius, size[1] / 2 - radius, size[0] / 2 + radius, size[1] / 2 + radius)
    ImageDraw.Draw(photo).ellipse(middle, fill=(200, 30, 30))
    ImageDraw.Draw(mask).ellipse(middle, fill=1)
    return photo, np.array(mask)


def blurred(mask, cells=5):
    """What a model says that sees the mask on a grid of so many cells."""
    return grid.enlarge(grid.cells(mask, cells, False)[None, 1:], mask.shape, False)[0, 0].numpy()


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (700, 500)])
def test_a_mask_gets_the_outline_of_what_is_seen(size):
    photo, truth = disc(size, min(size) / 4)
    soft = blurred(truth)
    mask = edges.sharpened(photo, soft)
    assert mask.dtype == np.uint8
    assert mask.shape == truth.shape
    assert iou(mask, truth) > iou(soft > 0.5, truth == 1) + 0.1


def test_what_would_be_lost_in_its_surroundings_stays():
    """Noise and fog are one superpixel, of which a thing is a small part."""
    soft = np.zeros((60, 80), np.float32)
    soft[20:40, 30:50] = 0.9
    for photo in (noise_image(0, (80, 60)), Image.new("RGB", (80, 60), (128, 128, 128))):
        np.testing.assert_array_equal(edges.sharpened(photo, soft), soft > 0.5)


def test_an_empty_answer_stays_empty():
    photo, _ = disc((80, 60), 20)
    assert not edges.sharpened(photo, np.full((60, 80), 0.2, np.float32)).any()


def test_the_threshold_is_the_masks():
    photo, truth = disc((160, 120), 30)
    soft = (0.2 + 0.5 * truth).astype(np.float32)
    for threshold, expected in ((0.1, np.ones_like(truth)), (0.4, truth), (0.8, np.zeros_like(truth))):
        assert (edges.sharpened(photo, soft, threshold) != expected).mean() < 0.02
