"""From margins to labels and counts: the fast ways against torch's interpolation and the plain counts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fss import grid
from fss.evaluation import metrics, scoring
from fss.evaluation.metrics import Counts
from fss.evaluation.scoring import Truth

SIDES = st.integers(1, 70)
CELLS = st.integers(1, 13)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@settings(max_examples=150)
@given(st.booleans(), CELLS, CELLS, SIDES, SIDES, st.integers(0, 9))
def test_enlarging_equals_torchs_interpolation(corners, h, w, height, width, seed):
    margins = noise(seed, 2, 3, h, w)
    found = scoring.enlarge(margins, (height, width), corners)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, grid.enlarge(margins, (height, width), corners), rtol=0, atol=2e-5)


def test_the_sides_of_photos_and_grids():
    for corners, cells, size in ((True, 9, (375, 500)), (False, 14, (333, 500)), (True, 60, (473, 473))):
        margins = noise(0, 1, 1, cells, cells)
        found = scoring.enlarge(margins, size, corners)
        torch.testing.assert_close(found, grid.enlarge(margins, size, corners), rtol=0, atol=2e-4)


@pytest.mark.parametrize("corners", [True, False])
def test_weights_are_shares_of_neighbours(corners):
    weights = scoring.interpolation(5, 33, corners)
    assert weights.shape == (33, 5)
    assert weights.min() >= 0
    assert ((weights > 0).sum(1) <= 2).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(33))
    assert torch.equal(scoring.interpolation(7, 7, corners), torch.eye(7))


def test_one_way_is_what_is_above_zero_at_the_pixels():
    margins = torch.tensor([[[[-1.0, 1.0, 1.0]]], [[[1.0, -1.0, 0.0]]]])
    found = scoring.predict(margins, (2, 9), corners=True)
    assert found.dtype == np.uint8
    assert found[0].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1]] * 2  # nothing to choose at the third pixel: background
    assert found[1].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0, 0]] * 2


def test_of_several_ways_the_largest_margin_above_zero_wins():
    margins = torch.tensor(
        [
            [1.0, -1.0, 0.0, 2.0, 0.5, -1.0, 0.0],
            [0.0, -2.0, 0.0, 3.0, -4.0, 0.1, -1.0],
            [-1.0, -3.0, 0.0, 1.0, 0.75, 0.0, -1.0],
        ]
    )
    found = scoring.predict(margins[None, :, None], (1, 7), corners=False)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[1, 0, 0, 2, 3, 2, 0]]]


@settings(max_examples=60)
@given(st.booleans(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_labels_equal_a_choice_among_interpolated_margins(corners, ways, episodes, height, width, seed):
    margins = noise(seed, episodes, ways, 4, 6)
    found = scoring.predict(margins, (height, width), corners)
    assert found.shape == (episodes, height, width)
    large = grid.enlarge(margins, (height, width), corners).numpy()
    against = np.concatenate([np.zeros_like(large[:, :1]), large], axis=1)  # the background's margin is zero
    first, second = np.moveaxis(np.sort(against, axis=1), 1, 0)[[-1, -2]]
    clear = first - second > 1e-4
    assert (found == against.argmax(axis=1))[clear].all()


@settings(max_examples=100)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(0, 6), st.data())
def test_counts_equal_the_plain_ones(ways, height, width, data):
    known = list(range(ways + 1))
    said = data.draw(arrays(np.uint8, (height, width), elements=st.sampled_from(known)))
    real = data.draw(arrays(np.uint8, (height, width), elements=st.sampled_from([*known, 255])))
    assert scoring.count(said, Truth.of(real, ways)) == metrics.count(said, real, ways)


def test_a_truth_by_hand():
    truth = Truth.of(np.array([[1, 2, 2], [0, 255, 0]], np.uint8), 2)
    assert truth.shape == (2, 3)
    assert (truth.areas, truth.total) == ((1, 2), 5)
    assert truth.nbytes == 4 * 6
    assert truth.thing.tolist() == [[True, True, True], [False, False, False]]


@pytest.mark.parametrize("ways", [1, 2])
def test_where_nothing_is_known_nothing_is_counted(ways):
    nothing = [Counts(0, 0, 0, 0, 0, 0)] * ways
    assert scoring.count(np.ones((3, 4), np.uint8), Truth.of(np.full((3, 4), 255, np.uint8), ways)) == nothing
    assert scoring.count(np.ones((0, 4), np.uint8), Truth.of(np.zeros((0, 4), np.uint8), ways)) == nothing


def test_a_query_without_a_pixel_of_the_class():
    """As when a small thing is lost at the model's resolution: all that was predicted is wrong."""
    truth = Truth.of(np.array([[0, 0, 255]], np.uint8), 1)
    assert scoring.count(np.array([[1, 0, 1]], np.uint8), truth) == [Counts(0, 1, 1, 2, 1, 0)]
    assert scoring.count(np.zeros((1, 3), np.uint8), truth) == [Counts(0, 0, 2, 2, 0, 0)]
