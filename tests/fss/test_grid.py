"""The two geometries of a feature grid, by hand: what a cell covers, and where its logit lands in the image."""

import numpy as np
import pytest
import torch

from fss import grid


def test_tiling_cells_average_their_own_pixels():
    mask = np.zeros((6, 9), np.uint8)
    mask[0:2, 3:5] = 1  # four of the six pixels of cell (0, 1) of a grid of 3 x 3 cells of 2 x 3 pixels
    mask[5, 8] = 255
    shares = grid.cells(mask, 3, corners=False)
    assert shares.shape == (2, 3, 3)
    assert shares.dtype == torch.float32
    expected = torch.zeros(3, 3)
    expected[0, 1] = 4 / 6
    assert torch.allclose(shares[1], expected)
    background = 1 - expected
    background[2, 2] = 5 / 6  # the void pixel is in neither share
    assert torch.allclose(shares[0], background)


def test_corner_cells_are_centred_on_the_border_pixels():
    """17 pixels, 3 cells: centres at pixels 0, 8 and 16, each the mean of up to 4 pixels to both sides."""
    mask = np.zeros((17, 17), np.uint8)
    mask[:, 8] = 1
    shares = grid.cells(mask, 3, corners=True)
    assert torch.allclose(shares[1], torch.tensor([0.0, 1 / 9, 0.0]).expand(3, 3))
    mask[:] = 0
    mask[:, 0] = 1
    shares = grid.cells(mask, 3, corners=True)
    assert torch.allclose(shares[1], torch.tensor([1 / 5, 0.0, 0.0]).expand(3, 3))
    mask[:] = 1
    mask[0, 0] = 255
    shares = grid.cells(mask, 3, corners=True)
    assert shares[1, 0, 0] == pytest.approx(24 / 25)
    assert shares[0].max() == 0


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(33, 33), (40, 57), (5, 3), (300, 211)])
def test_shares_of_any_image_size(corners, size):
    rng = np.random.default_rng(0)
    for mask in (np.zeros(size, np.uint8), np.ones(size, np.uint8)):
        shares = grid.cells(mask, 5, corners)
        assert torch.allclose(shares[int(mask[0, 0])], torch.ones(5, 5))
        assert shares[1 - int(mask[0, 0])].max() == 0
    assert grid.cells(np.full(size, 255, np.uint8), 5, corners).max() == 0
    mask = rng.choice(np.array([0, 1, 255], np.uint8), size)
    shares = grid.cells(mask, 5, corners)
    assert shares.min() >= 0
    assert shares.sum(0).max() <= 1 + 1e-6
    mirrored = grid.cells(mask[:, ::-1].copy(), 5, corners)
    if (size[1] - 1) % 32 == 0 or not corners:
        assert torch.allclose(mirrored, shares.flip(2), atol=1e-6)


def test_enlarge_puts_corner_cells_on_border_pixels():
    values = torch.tensor([[[[0.0, 1.0, 0.0]]]])
    row = grid.enlarge(values, (1, 9), corners=True)[0, 0, 0]
    assert torch.allclose(row, torch.tensor([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]))


def test_enlarge_puts_tiling_cells_in_the_middle_of_their_pixels():
    values = torch.tensor([[[[0.0, 1.0]]]])
    row = grid.enlarge(values, (1, 8), corners=False)[0, 0, 0]
    assert torch.allclose(row, torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1]))


@pytest.mark.parametrize(("corners", "size"), [(True, 33), (False, 32)])
def test_cells_and_enlarge_are_one_geometry(corners, size):
    """A thing painted on the grid, enlarged, cut at one half and brought back is where it was."""
    small = torch.zeros(1, 1, 5 if corners else 4, 5 if corners else 4)
    small[0, 0, 1:3, 1:4] = 1
    mask = (grid.enlarge(small, (size, size), corners)[0, 0] > 0.5).numpy().astype(np.uint8)
    assert torch.equal(grid.cells(mask, small.shape[-1], corners)[1] >= 0.5, small[0, 0] > 0)


def test_enlarge_is_float32_whatever_came():
    assert grid.enlarge(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), (9, 7), True).dtype == torch.float32
    assert grid.enlarge(torch.ones(2, 3, 4, 4, dtype=torch.int64), (9, 7), False).shape == (2, 3, 9, 7)


@pytest.mark.parametrize("corners", [False, True])
def test_enlarged_labels_equal_a_vote_of_indicators(corners):
    labels = np.random.default_rng(0).choice([3, 70, 60000], (4, 6))
    found = grid.enlarge_labels(labels, (23, 31), corners)
    votes = [
        grid.enlarge(torch.from_numpy(labels == value)[None, None].float(), (23, 31), corners)[0, 0]
        for value in (3, 70, 60000)
    ]
    strongest = torch.stack(votes) >= torch.stack(votes).amax(0) - 1e-5  # the lowest label of those that tie
    expected = np.array([3, 70, 60000])[strongest.int().argmax(0).numpy()]
    assert np.array_equal(found, expected)
    assert found.dtype == np.uint16


def test_labels_of_one_value_stay():
    assert np.array_equal(grid.enlarge_labels(np.full((2, 2), 9), (5, 5), True), np.full((5, 5), 9))


def test_sampled_labels_are_those_at_the_centres():
    labels = np.arange(17)[None] + 100 * np.arange(9)[:, None]
    assert grid.sample_labels(labels, (2, 3), corners=True).tolist() == [[0, 8, 16], [800, 808, 816]]
    assert grid.sample_labels(labels[:8, :12], (2, 3), corners=False).tolist() == [[202, 206, 210], [602, 606, 610]]


@pytest.mark.parametrize("corners", [False, True])
def test_sampling_undoes_enlarging(corners):
    labels = np.random.default_rng(1).integers(0, 9, (5, 7))
    size = (33, 49) if corners else (40, 56)
    assert np.array_equal(grid.sample_labels(grid.enlarge_labels(labels, size, corners), (5, 7), corners), labels)
