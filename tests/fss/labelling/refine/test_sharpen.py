"""Masks of cells at the pixels of a photo: borders go where the photo has them."""

import numpy as np
import pytest
from PIL import Image

from fss.labelling.refine.sharpen import enlarged, sharpen
from tests.fss.labelling.refine.planted import iou


@pytest.mark.parametrize("size", [(200, 160), (600, 480)])
@pytest.mark.parametrize("corners", [True, False])
def test_the_superpixels_of_the_photo_say_where_a_mask_ends(size, corners):
    height, width = size
    place = np.zeros(size, bool)
    place[height // 4 : height * 3 // 4, width // 3 : width * 2 // 3] = True
    noise = np.random.default_rng(0).integers(-4, 5, size=(*size, 3))
    photo = Image.fromarray((np.where(place[..., None], (200, 60, 40), (40, 120, 60)) + noise).astype(np.uint8))
    soft = np.zeros((9, 9), np.float32)
    soft[2:7, 3:6] = 0.9
    soft[3:5, 6] = 0.9
    soft[2, 3:5] = 0.2
    assert iou(enlarged(soft, size, corners) >= 0.5, place) < 0.8
    found = sharpen(photo, soft, corners)
    assert found.dtype == bool
    assert found.shape == size
    assert iou(found, place) > 0.9


def test_a_mask_of_nothing_and_one_of_all_stay():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(60, 80, 3), dtype=np.uint8))
    assert not sharpen(photo, np.zeros((5, 5), np.float32), True).any()
    assert sharpen(photo, np.ones((5, 5), np.float32), True).all()
