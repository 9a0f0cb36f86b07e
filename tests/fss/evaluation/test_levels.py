"""Levels by consistency: every candidate is looked at, and what follows the picture is taken before what does not."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fss import rng
from fss.evaluation import levels
from fss.evaluation.consistency import consistency

SIDE, CELL = 64, 8
GRID = SIDE // CELL


@pytest.mark.parametrize("depth", [3, 4, 5, 8, 12, 17])
def test_every_level_is_looked_at(depth):
    alone = levels.alone(depth)
    assert {level for one in alone for level in one} >= set(range(levels.FIRST, depth + 1))
    assert all(list(one) == sorted(set(one)) and len(one) == 3 and one[0] >= 1 for one in alone)
    for high in range(levels.FIRST, depth + 1):
        beside = levels.beside(high)
        assert {level for one in beside for level in one[:2]} >= set(range(2, high))
        assert all(one[2] == high and 1 <= one[0] < one[1] < high for one in beside)


def test_low_lies_below_mid():
    for mid in range(2, 12):
        low, _, high = levels.three(mid, 12)
        assert 1 <= low < mid < high


def test_of_equal_levels_the_lowest_is_taken():
    assert levels.chosen({4: 0.5, 3: 0.5, 5: 0.25}) == 3


def test_fine_grids_take_fewer_photos():
    assert levels.photos_for(27) == 89
    assert [levels.photos_for(grid) for grid in (8, 64, 256)] == [levels.PHOTOS, 16, levels.FEWEST]


class Seen:
    """An extractor whose level low is a cell's place, mid the brightness in it, high both."""

    size, grid = SIDE, GRID

    class backbone:  # noqa: N801
        interpolation, corners = "bilinear", False

    def __init__(self, call):
        self.call = call

    def features(self, inputs):
        assert len(inputs) <= self.call
        bright = F.unfold(inputs.mean(dim=1, keepdim=True), CELL, stride=CELL).unflatten(2, (GRID, GRID))
        place = torch.eye(GRID**2).unflatten(1, (GRID, GRID)).expand(len(inputs), -1, -1, -1)
        return {"low": place, "mid": bright, "high": torch.cat([bright, place], dim=1)}


def test_photos_are_looked_at_in_any_calls_and_features_of_place_are_worth_nothing():
    generator = rng.numpy_rng(0, "levels")
    small = [Image.fromarray(generator.integers(0, 255, (12, 12, 3), "uint8")) for _ in range(6)]
    pictures = {str(number): one.resize((SIDE, SIDE)) for number, one in enumerate(small)}
    asked = [("low",), ("mid",), ("low", "mid")]
    place, bright, both = levels.scores(Seen(4), pictures, asked)
    assert [place, bright, both] == levels.scores(Seen(1), pictures, asked)
    assert bright > place == 0.0
    first, second, seen = levels.twice(Seen(4), pictures)
    assert bright == consistency(first["mid"].float(), second["mid"].float(), seen)
    assert not torch.equal(first["mid"], second["mid"])
