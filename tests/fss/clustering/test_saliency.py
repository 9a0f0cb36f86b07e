"""The salient side of painted images."""

import numpy as np
import pytest

from fss.clustering.saliency import cut


def painted(side: np.ndarray, seed: int = 0) -> np.ndarray:
    """Unit tokens (h, w, 8) of two kinds, 60 degrees apart, with noise."""
    kinds = np.zeros((2, 8))
    kinds[0, 0] = 1
    kinds[1, :2] = 0.5, 0.75**0.5
    tokens = kinds[side.astype(int)] + 0.1 * np.random.default_rng(seed).normal(size=(*side.shape, 8))
    return (tokens / np.linalg.norm(tokens, axis=2, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("where", [np.s_[3:7, 2:8], np.s_[4:10, 3:7], np.s_[1:9, 1:9]], ids=["in", "edge", "large"])
def test_the_salient_side_holds_less_of_the_border(where):
    """Also where it touches the border, and where it is the larger side."""
    side = np.zeros((10, 10), bool)
    side[where] = True
    assert np.array_equal(cut(painted(side)) > 0, side)
    assert np.array_equal(cut(painted(~side)) > 0, side)


def test_where_borders_tie_the_first_cell_is_outside():
    side = np.zeros((6, 6), bool)
    side[:, 3:] = True
    assert np.array_equal(cut(painted(side)) > 0, side)
    assert np.array_equal(cut(painted(~side)) > 0, side)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_plain_image_shows_nothing(value):
    assert (cut(np.full((4, 5, 4), value, np.float32)) == 0).all()
