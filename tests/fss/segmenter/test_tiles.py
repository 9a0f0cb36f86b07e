"""Tiles: all of an image, the stated overlap, and no seam."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.segmenter import Segmenter, tiles
from tests.fss.conftest import noise_image

LENGTH = st.integers(1, 300)


@given(LENGTH, LENGTH, st.integers(8, 120))
def test_tiles_cover_the_image_and_overlap(width, height, side):
    places = tiles.boxes((width, height), side)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        ends = sorted({(place[low], place[high]) for place in places})
        assert (ends[0][0], ends[-1][1]) == (0, length)
        assert {stop - start for start, stop in ends} == {min(side, length)}
        for (_, stop), (start, _) in itertools.pairwise(ends):
            assert stop - start >= tiles.OVERLAP * side - 1
    assert len(set(places)) == len(places)


@given(LENGTH, LENGTH, st.integers(8, 120))
def test_what_all_tiles_agree_on_is_kept(width, height, side):
    whole = np.random.default_rng(0).random((height, width), np.float32)
    places = tiles.boxes((width, height), side)
    parts = [whole[top:bottom, left:right] for left, top, right, bottom in places]
    np.testing.assert_allclose(tiles.blended((width, height), places, parts), whole, atol=1e-6)


def test_no_seam_where_tiles_disagree():
    """Neighbours of 0 and 1: the answer rises evenly over the overlap, in steps of about one part of its width."""
    places = tiles.boxes((175, 100), 100)
    assert places == [(0, 0, 100, 100), (75, 0, 175, 100)]
    found = tiles.blended((175, 100), places, [np.zeros((100, 100)), np.ones((100, 100))])
    steps = np.diff(found[50])
    assert (found[:, :75] == 0).all()
    assert (found[:, 100:] == 1).all()
    assert steps.min() >= 0
    assert steps.max() < 1.2 / 25


@pytest.fixture(scope="module")
def thing():
    extractor = Extractor(backbones.build("small", seed=1), size=64)
    network = extractor.backbone
    one = Segmenter(heads.build("smoothed", {}, network.channels, corners=network.corners).eval(), extractor, {})
    return one.prepare(noise_image(1, (64, 64)), np.pad(np.ones((30, 30), np.uint8), 17))


def test_an_image_within_a_tile_is_answered_as_a_whole(thing):
    small, large = noise_image(2, (60, 40)), noise_image(3, (150, 90))
    answers = list(thing.stream([small, large], tile=64))
    np.testing.assert_array_equal(answers[0].probabilities, thing.probabilities(small))
    assert answers[1].probabilities.shape == (90, 150)


def test_a_tile_sees_what_a_crop_shows(thing):
    """Where one tile alone counts, the answer is that of the crop."""
    large = noise_image(3, (112, 64))
    assert tiles.boxes(large.size, 64) == [(0, 0, 64, 64), (48, 0, 112, 64)]
    (answer,) = thing.stream([large], tile=64)
    crop = thing.probabilities(large.crop((0, 0, 64, 64)))
    np.testing.assert_allclose(answer.probabilities[:, :48], crop[:, :48], rtol=1e-6)


@pytest.mark.parametrize("side", [0, -1, 1, 1.5, True, "64"])
def test_a_side_of_no_tiles_is_refused_before_any_image(thing, side):
    with pytest.raises(ValueError, match="tile: expected a whole number of pixels from 2 on, got"):
        thing.stream([noise_image(2, (60, 40))], tile=side)
