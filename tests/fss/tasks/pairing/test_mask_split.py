"""Splitting regions: lines by hand and by brute force, what is void, who is rejected, and nothing random."""

import dataclasses
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.tasks.pairing import mask_split
from fss.tasks.pairing.mask_split import Keys, Split
from fss.tasks.pairing.parts import pairs
from tests.fss.tasks.pairing.test_pairs import random_table

ALL = Split(min_area=0.0)


def regions(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.6


def test_an_upright_line_by_hand():
    """Of columns of 1, 3, 3, 0 and 2 the third, with 4 before it and 2 behind it; the second has 1 and 5."""
    region = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1], [0, 1, 1, 0, 1]], bool)
    left, right = mask_split.halves(region, True, 0)
    assert left.astype(int).tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert right.astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]


def test_a_sloping_line_by_hand():
    """On column 2, shifted by 1: through columns 3, 2 and 1 of the three rows; lying likewise."""
    left, right = mask_split.halves(np.ones((3, 5), bool), True, 1)
    assert left.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert right.astype(int).tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    above, below = mask_split.halves(np.ones((5, 3), bool), False, 1)
    assert np.array_equal(above, left.T)
    assert np.array_equal(below, right.T)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(-5, 5))
def test_every_pixel_is_on_its_side_of_the_line(seed, height, width, upright, shift):
    """Against exact fractions, pixel by pixel."""
    region = regions(seed, height, width)
    first, second = mask_split.halves(region, upright, shift)
    seen = region if upright else region.T
    gaps = [abs(int(seen[:, :x].sum()) - int(seen[:, x + 1 :].sum())) for x in range(seen.shape[1])]
    middle, rows = gaps.index(min(gaps)), seen.shape[0]
    for y, x in np.ndindex(*region.shape):
        along, across = (y, x) if upright else (x, y)
        line = middle + shift * (1 - Fraction(2 * along, max(rows - 1, 1)))
        assert first[y, x] == (region[y, x] and across < line)
        assert second[y, x] == (region[y, x] and across > line)


@given(st.integers(0, 999), st.sampled_from(["vertical", "horizontal", "mixed"]), st.booleans(), st.booleans())
@settings(max_examples=50)
def test_halves_never_overlap_and_what_is_left_is_void(seed, kind, ignore_support, ignore_query):
    region = regions(seed, 20, 30)
    found = mask_split.split(
        region, dataclasses.replace(ALL, kind=kind, ignore_support=ignore_support, ignore_query=ignore_query), seed
    )
    query, support = found.query == 1, found.support == 1
    assert query.any()
    assert support.any()
    assert not (query & support).any()
    for half, mask, ignore in ((query, found.query, ignore_support), (support, found.support, ignore_query)):
        assert (mask[region & ~half] == (255 if ignore else 0)).all()
        assert (mask[~region] == 0).all()
        assert mask.dtype == np.uint8


def test_without_slope_and_alternation_the_right_half_supports():
    region = np.ones((10, 11), bool)
    rules = dataclasses.replace(ALL, slope=0.0, alternate=False)
    for seed in range(20):
        found = mask_split.split(region, rules, seed)
        assert (found.query[:, :5] == 1).all()
        assert (found.query[:, 5:] == 255).all()
        assert (found.support == 1).sum() == 50
        assert (found.support[:, 6:] == 1).all()


def test_sides_and_directions_take_turns_and_shifts_fill_their_range():
    """Of a square of 41 a slope of 0.1 shifts by -4 to 3."""
    region, tops, sides, upright = np.ones((41, 41), bool), [], 0, 0
    for seed in range(400):
        query, support = mask_split.split(region, ALL, seed)
        (top,), (bottom,) = (np.flatnonzero((query[row] != 1) & (support[row] != 1)) for row in (0, 40))
        assert top - 20 == 20 - bottom
        tops.append(int(top) - 20)
        sides += support[0, 0] == 1
        straight = mask_split.split(region, dataclasses.replace(ALL, kind="mixed", slope=0.0), seed)
        upright += bool((straight.query == straight.query[0]).all())
    assert set(tops) == set(range(-4, 4))
    assert min(tops.count(shift) for shift in set(tops)) > 25
    assert 150 < sides < 250
    assert 150 < upright < 250


def test_unsplit_tasks_see_the_whole_region():
    region = regions(0, 12, 12)
    rules = dataclasses.replace(ALL, probability=0.3)
    whole = [np.array_equal(mask_split.split(region, rules, seed).query, region) for seed in range(300)]
    assert 0.62 < np.mean(whole) < 0.78
    unsplit = mask_split.split(region, dataclasses.replace(ALL, probability=0.0), 0)
    assert np.array_equal(unsplit.query, unsplit.support)


def test_both_halves_must_be_large_enough():
    """A column of ten pixels beside a single far one: an upright line leaves one pixel, a lying one five and more."""
    region = np.zeros((20, 20), bool)
    region[5:15, 3] = True
    region[14, 18] = True
    rules = dataclasses.replace(ALL, slope=0.0, min_area=4 / 400)
    assert mask_split.split(region, rules, 0) is None  # the line is on column 3
    assert mask_split.split(region, dataclasses.replace(rules, kind="horizontal"), 0) is not None
    assert mask_split.split(region, dataclasses.replace(rules, kind="horizontal", min_area=6 / 400), 0) is None
    assert mask_split.split(region, dataclasses.replace(rules, probability=0.0, min_area=12 / 400), 0) is None


def test_a_task_is_of_one_region_and_its_line_of_its_slot():
    rules = Keys(tasks_per_image=3, shots=2)
    regions = random_table(30, 4)
    drawn = mask_split.draw(regions, rules, seed=1)
    assert drawn == mask_split.draw(regions, rules, seed=1)
    usable = pairs.usable(regions, rules)
    assert len(drawn) == 3 * len(set(regions.key[usable]))
    assert all(usable[one.query] and one.supports == (one.query,) * 2 for one in drawn)
    assert len({one.seed for one in drawn}) == len(drawn)
    assert {one.seed for one in drawn}.isdisjoint(one.seed for one in mask_split.draw(regions, rules, seed=2))
    some = np.arange(len(regions)) % 2 == 0
    assert all(some[one.query] for one in mask_split.draw(regions, rules, seed=1, queries=some))
