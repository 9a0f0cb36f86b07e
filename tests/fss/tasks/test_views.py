"""Views: pure functions of (seed, image, number), and crops that keep the object."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fss.tasks import views
from fss.tasks.views import Augment, View

NOTHING = Augment(crop=1, rotation=0, flip=0, colour=0, blur=0)


def numbered(height: int, width: int) -> np.ndarray:
    """A mask in which every pixel has its own number."""
    return np.arange(height * width, dtype=np.uint8).reshape(height, width)


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_mask_of_a_plain_view_stay_together(flip):
    mask = numbered(9, 13)
    image = Image.fromarray(np.stack([mask] * 3, 2))
    view = View(flip, aspect=1.3)
    assert np.array_equal(np.asarray(view.of_image(image))[..., 0], view.mirrored(mask))
    assert np.array_equal(view.mirrored(mask), mask[:, ::-1] if flip else mask)
    assert view.mirrored(mask).flags.c_contiguous


def test_other_views_are_not_made_of_pictures():
    with pytest.raises(ValueError, match=r"expected the image or its mirror image, got View\(.*angle=3"):
        View(angle=3).of_image(Image.new("RGB", (2, 2)))


def test_views_0_and_1_are_the_image_and_its_mirror_image():
    assert views.draw(0, "a", 0, Augment(), (3, 4)) == View()
    assert views.draw(9, "b", 1, Augment(), (3, 4), np.ones((3, 4))) == View(flip=True)


def test_a_view_is_a_function_of_seed_key_and_number():
    def one(seed, key, number):
        return views.draw(seed, key, number, Augment())

    assert one(1, "a", 5) == one(1, "a", 5)
    assert len({one(1, "a", 5), one(2, "a", 5), one(1, "b", 5), one(1, "a", 6)}) == 4


def test_0_turns_every_change_off():
    assert {views.draw(0, "a", n, NOTHING, (2, 3)) for n in range(2, 50)} == {View(aspect=1.5)}


def test_changes_stay_within_their_limits_and_reach_them_nearly():
    drawn = [views.draw(0, "a", number, Augment()) for number in range(2, 500)]
    for view in drawn:
        left, top, right, bottom = view.box
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        width, height = right - left, bottom - top
        assert 0.49 < width * height <= 1 + 1e-9
        assert 0.79 < width / height < 1.26
    for values, low, high in (
        ([v.angle for v in drawn], -10, 10),
        ([v.brightness for v in drawn], 0.8, 1.2),
        ([v.contrast for v in drawn], 0.8, 1.2),
        ([v.saturation for v in drawn], 0.8, 1.2),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
    assert sum(v.flip for v in drawn) == pytest.approx(249, abs=45)
    assert sum(v.blur > 0 for v in drawn) == pytest.approx(100, abs=36)


def test_new_changes_draw_nothing_where_they_are_not_used():
    """So that views of before stay what they were: these figures are theirs."""
    found = views.draw(3, "a", 5, Augment(), (3, 4))
    assert found.box == pytest.approx(
        (0.009826611504108584, 0.027337668521319487, 0.9837470705515546, 0.9433189351655596), abs=1e-12
    )
    assert found.angle == pytest.approx(1.7214069498243205, abs=1e-12)
    more = views.draw(3, "a", 5, Augment(gray=1, vertical_flip=1, hue=0.1), (3, 4))
    assert 0 < abs(more.hue) <= 0.1
    assert found.hue == 0
    assert (more.brightness, more.blur) == (found.brightness, found.blur)
    assert (more.saturation, more.upside, more.moved, more.plain) == (0, True, True, False)


def test_wide_views_hold_all_of_the_image():
    drawn = [views.draw(0, "a", n, Augment(crop=1, rotation=0, widest=2.0)) for n in range(2, 300)]
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (view.box for view in drawn)]
    assert 1 <= min(areas) < 1.05
    assert 1.95 < max(areas) <= 2
    for left, top, right, bottom in (view.box for view in drawn):
        for low, high in ((left, right), (top, bottom)):
            assert (low <= 0 and high >= 1) if high - low >= 1 else (low >= 0 and high <= 1)


def test_places_by_hand():
    """The right half of an image of 2 by 1, turned by 90 degrees: its top is the view's right."""
    matrix = View(box=(0.5, 0, 1, 1), aspect=2).affine()
    assert matrix @ [-1, -1, 1] == pytest.approx([0, -1])
    assert matrix @ [1, 1, 1] == pytest.approx([1, 1])
    turned = View(box=(0.5, 0, 1, 1), aspect=2, angle=90).affine()
    assert turned @ [1, 0, 1] == pytest.approx([0.5, -1])  # right of the view: top of the picture
    assert turned @ [0, 1, 1] == pytest.approx([1, 0])  # bottom of the view: right of the picture
    mirrored = View(flip=True, box=(0.5, 0, 1, 1), aspect=2, angle=90).affine()
    assert mirrored @ [-1, 0, 1] == pytest.approx([0.5, -1])


@settings(max_examples=60)
@given(st.floats(-180, 180), st.floats(0.5, 2), st.booleans())
def test_a_turn_keeps_distances_in_pixels(angle, aspect, flip):
    """A view of a whole image is squeezed like the image: undone, it must be a rotation."""
    pixels = np.diag([aspect, 1.0])
    turn = pixels @ View(flip, angle=angle, aspect=aspect).affine()[:, :2] @ np.linalg.inv(pixels)
    np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(-1 if flip else 1)
    assert turn[1, 1] == pytest.approx(math.cos(math.radians(angle)))


def test_crops_keep_the_object_and_blind_ones_do_not():
    mask = np.zeros((60, 80), np.int32)
    mask[2:20, 2:20] = 1
    mask[40:, 40:] = 255
    rules = Augment(crop=0.25, keep=0.7)
    ys, xs = np.nonzero(mask == 1)
    points = np.stack([(xs + 0.5) / 40 - 1, (ys + 0.5) / 30 - 1], 1)
    kept = [views.draw(0, "a", n, rules, mask.shape, mask).keeps(points) for n in range(2, 200)]
    blind = [views.draw(0, "a", n, rules, mask.shape).keeps(points) for n in range(2, 200)]
    assert min(kept) > 0.68  # what is looked at is a sample
    assert sum(value < 1 for value in kept) > 10
    assert min(blind) < 0.2


def test_without_a_crop_that_keeps_it_the_whole_image_is_taken():
    mask = np.ones((40, 40), np.uint8)
    found = views.draw(0, "a", 7, Augment(crop=0.3, keep=0.999), mask.shape, mask)
    assert not found.moved
    assert found.brightness != 1
    empty = views.draw(0, "a", 7, Augment(crop=0.3, keep=0.999), mask.shape, mask * 0)
    assert empty.moved  # a distractor has nothing to lose
