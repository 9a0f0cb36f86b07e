"""Segments by normalised cut: eigenvectors against the textbook's problem, and clear things found whole."""

import numpy as np
import pytest
import torch

from fss.segments import normalised_cut, segment
from tests.fss.test_pseudo import quadrants, same_partition, unit


def ncut(tokens: np.ndarray, numbers: tuple[int, ...]) -> np.ndarray:
    return segment(torch.from_numpy(tokens)[None], "ncut", numbers)[0].numpy()


def test_columns_solve_the_normalised_cut():
    """(D - W) y = lambda D y with the smallest non-trivial lambda first (Shi and Malik 2000, Eq. 6)."""
    tokens = unit(np.abs(np.random.default_rng(0).standard_normal((20, 6)))).astype(np.float32)
    found = normalised_cut(tokens, dims=4, power=3.0)
    affinity = np.maximum(tokens @ tokens.T, 0).astype(np.float64) ** 3
    degree = np.diag(affinity.sum(1))
    exact = np.sort(np.linalg.eigvals(np.linalg.solve(degree, degree - affinity)).real)
    for column in range(4):
        y = found[:, column]
        assert np.allclose((degree - affinity) @ y, exact[column + 1] * degree @ y, atol=1e-6)
    assert np.allclose(found.std(axis=0), 1 / np.sqrt([1, 2, 3, 4]))


def test_fewer_tokens_than_dimensions():
    tokens = unit(np.abs(np.random.default_rng(0).standard_normal((3, 4)))).astype(np.float32)
    assert normalised_cut(tokens, dims=6, power=5.0).shape == (3, 2)


def test_clear_things_are_found_whole_and_numbered_from_zero():
    tokens, quarter = quadrants()
    (four, two) = ncut(tokens, (4, 2))
    assert same_partition(four, quarter)
    assert np.unique(four).tolist() == [0, 1, 2, 3]
    assert np.unique(two).tolist() == [0, 1]
    assert four.dtype == np.int64
    joined = {(int(a), int(b)) for a, b in zip(four.ravel(), two.ravel(), strict=True)}
    assert len(joined) == 4  # coarser segments are unions of finer ones


def test_two_things_alike_make_one_segment():
    look = np.zeros((6, 9), np.int64)
    look[2:4, 1:3] = look[2:4, 6:8] = 1
    noise = 0.02 * np.random.default_rng(0).standard_normal((6, 9, 4))
    (found,) = ncut(unit(np.eye(4)[look] + noise).astype(np.float32), (2,))
    assert same_partition(found, look)


def test_the_same_tokens_give_the_same_segments():
    tokens = quadrants()[0]
    for first, second in zip(ncut(tokens, (3, 5)), ncut(tokens.copy(), (3, 5)), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("number", [1, 3, 1000])
def test_never_more_segments_than_asked_for(number):
    (found,) = ncut(quadrants()[0], (number,))
    assert len(np.unique(found)) <= min(number, 64)
