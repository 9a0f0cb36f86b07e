"""Views: the same cut and mirror for image and mask, and a pure function of (seed, key, number)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fss import views
from fss.views import View

SHARES = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.5, 1), st.floats(0.5, 1))


def numbered(height: int, width: int) -> np.ndarray:
    """A mask in which every pixel has its own number."""
    return np.arange(height * width, dtype=np.uint16).reshape(height, width)


def picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([mask >> 8, mask & 255, mask * 0], 2).astype(np.uint8))


@settings(max_examples=50, deadline=None)
@given(st.booleans(), SHARES, st.integers(1, 40), st.integers(1, 40))
def test_image_and_mask_stay_together(flip, box, height, width):
    mask = numbered(height, width)
    view = View(flip, box)
    pixels = np.asarray(view.of_image(picture(mask))).astype(np.uint16)
    assert np.array_equal(pixels[..., 0] * 256 + pixels[..., 1], view.of_mask(mask))
    assert min(view.of_mask(mask).shape) >= 1


def test_crop_and_mirror_by_hand():
    mask = numbered(4, 8)
    assert View(box=(0.25, 0.5, 0.75, 1.0)).of_mask(mask).tolist() == [[18, 19, 20, 21], [26, 27, 28, 29]]
    assert View(True, (0.25, 0.5, 0.75, 1.0)).of_mask(mask).tolist() == [[21, 20, 19, 18], [29, 28, 27, 26]]
    assert np.array_equal(View().of_mask(mask), mask)
    assert np.array_equal(View(flip=True).of_mask(mask), mask[:, ::-1])


def test_a_mirrored_mask_can_become_a_tensor():
    assert View(flip=True).of_mask(numbered(3, 3)).flags.c_contiguous


def test_views_0_and_1_are_the_image_and_its_mirror_image():
    assert views.draw(0, "a", 0) == View()
    assert views.draw(9, "b", 1) == View(flip=True)


def test_a_view_is_a_function_of_seed_key_and_number():
    assert views.draw(1, "a", 5) == views.draw(1, "a", 5)
    assert len({views.draw(1, "a", 5), views.draw(2, "a", 5), views.draw(1, "b", 5), views.draw(1, "a", 6)}) == 4


def test_crops_keep_half_to_all_of_the_area_and_nearly_the_aspect():
    drawn = [views.draw(0, "a", number) for number in range(2, 500)]
    for view in drawn:
        left, top, right, bottom = view.box
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        width, height = right - left, bottom - top
        assert 0.49 < width * height <= 1 + 1e-9
        assert 0.79 < width / height < 1.26
    assert sum(view.flip for view in drawn) == pytest.approx(249, abs=45)
