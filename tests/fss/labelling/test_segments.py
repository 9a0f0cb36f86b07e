"""Segment steps: eigenvectors against the textbook's problem, merges against a greedy loop, things found whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fss.labelling.segments import GRADED, cut_embedding, normalised_cut, second_vector, segment, superpixels
from fss.labelling.segments.superpixel import vote
from tests.fss.labelling.test_pseudo import quadrants, same_partition, unit


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


def patches(size: int, seed: int = 0) -> np.ndarray:
    """Eight overlapping looks that fade into each other, as in photos, of size x size tokens."""
    generator = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1)
    centres = generator.uniform(0, size, (8, 2))
    shares = np.exp(-((places[:, :, None] - centres) ** 2).sum(-1) / size)
    looks = np.abs(generator.standard_normal((8, 16)))
    return unit(shares @ looks + 0.02 * generator.standard_normal((size, size, 16))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_the_krylov_space_holds_the_leading_eigenvectors(seed):
    tokens = patches(20, seed).reshape(400, -1)
    exact = torch.from_numpy(normalised_cut(tokens, 6, 5.0))
    found = cut_embedding(torch.from_numpy(tokens)[None], 6, 5.0)[0]
    angle = torch.linalg.svdvals(torch.linalg.qr(exact).Q.T @ torch.linalg.qr(found).Q)
    assert angle.min() > 1 - 1e-6
    assert torch.allclose(found.std(dim=0, correction=0), 1 / torch.arange(1, 7).double().sqrt(), atol=1e-3)


@pytest.mark.parametrize(("number", "width"), [(100, 8), (300, 64), (5, 4)])
def test_the_second_vector_alone(number, width):
    """Also of few dimensions, whose affinities are of low rank; up to its sign."""
    tokens = unit(np.random.default_rng(number).standard_normal((number, width))).astype(np.float32)
    tokens[: number // 3] = unit(tokens[: number // 3] + tokens[0])
    exact, found = normalised_cut(tokens, 1, 1.0)[:, 0], second_vector(tokens)
    assert np.abs(found - np.sign(found @ exact) * exact).max() < 1e-5
    assert not second_vector(np.tile(tokens[:1], (number, 1))).any()


def test_a_plain_image_is_one_segment():
    plain = torch.full((1, 12, 12, 4), 0.5)
    assert segment(plain, "ncut", (3,)).unique().tolist() == [0]
    assert torch.equal(cut_embedding(plain.flatten(1, 2), 6, 5.0), torch.zeros(1, 144, 6, dtype=torch.float64))


@pytest.mark.parametrize("name", GRADED)
def test_an_image_alone_has_the_segments_that_it_has_in_a_batch(name):
    fields = torch.from_numpy(np.stack([patches(12, seed) for seed in range(3)]))
    together = segment(fields, name, (2, 5))
    assert together.shape == (3, 2, 12, 12)
    assert together.dtype == torch.int64
    for index in range(3):
        assert torch.equal(segment(fields[index : index + 1], name, (2, 5))[0], together[index])
    assert segment(fields[:0], name, (2, 5)).shape == (0, 2, 12, 12)


def greedy(tokens: np.ndarray, number: int) -> np.ndarray:
    """Ward's rule over all pairs of touching segments, from scratch at every step."""
    height, width = tokens.shape[:2]
    labels = np.arange(height * width).reshape(height, width)
    while len(np.unique(labels)) > number:
        touching = {
            tuple(sorted(pair))
            for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
            for pair in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
            if pair[0] != pair[1]
        }

        def growth(pair):
            first, second = (tokens[labels == each].astype(np.float64) for each in pair)
            n, m = len(first), len(second)
            return n * m / (n + m) * ((first.mean(0) - second.mean(0)) ** 2).sum()

        kept, gone = min(touching, key=growth)
        labels[labels == gone] = kept
    return labels


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_merging_equals_a_greedy_loop(height, width, seed):
    tokens = unit(np.random.default_rng(seed).standard_normal((height, width, 3))).astype(np.float32)
    numbers = (1, 3, 7)
    found = segment(torch.from_numpy(tokens)[None], "agglomerate", numbers)[0].numpy()
    for number, labels in zip(numbers, found, strict=True):
        assert same_partition(labels, greedy(tokens, number))
        assert np.unique(labels).tolist() == list(range(min(number, height * width)))


def test_merged_segments_are_connected_where_cuts_need_not_be():
    look = np.zeros((6, 9), np.int64)
    look[2:4, 1:3] = look[2:4, 6:8] = 1
    tokens = np.eye(4, dtype=np.float32)[look]
    found = segment(torch.from_numpy(tokens)[None], "agglomerate", (3,))[0, 0].numpy()
    assert len({int(found[2, 1]), int(found[2, 6]), int(found[0, 0])}) == 3
    assert all(len(np.unique(found[look == 1][[i, i + 1]])) == 1 for i in (0, 2, 4, 6))


def test_a_vote_by_hand():
    labels = np.array([[7, 7, 2], [2, 7, 2]])
    segments = np.array([[0, 0, 1], [0, 0, 1]])
    assert vote(labels, segments).tolist() == [7, 2]
    assert vote(np.array([[9, 4]]), np.zeros((1, 2), np.int64)).tolist() == [4]  # ties to the lower


def test_every_superpixel_lies_in_one_thing():
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 40:] = (250, 20, 20)
    found = superpixels(Image.fromarray(pixels))
    assert found.shape == (60, 100)
    assert same_partition(found[:, :35], np.zeros((60, 35)))  # the smoothed edge may fall to either side
    assert same_partition(found[:, 45:], np.zeros((60, 55)))
    assert found[0, 0] != found[0, -1]
    assert np.unique(found).tolist() == list(range(found.max() + 1))


def test_superpixels_of_a_large_picture_are_those_of_a_small_one():
    pixels = np.zeros((480, 800, 3), np.uint8)
    pixels[:, 400:] = (250, 20, 20)
    pixels[100:106, 100:106] = 255  # 36 pixels, 6 of the small one: less than a segment needs
    found = superpixels(Image.fromarray(pixels))
    assert found.shape == (192, 320)
    away = np.abs(np.arange(320) - 160) > 4
    assert same_partition(found[:, away], (np.arange(320) >= 160)[None, away].repeat(192, 0))


@pytest.mark.parametrize(
    ("name", "numbers", "shape", "message"),
    [
        ("spectral", (3,), (1, 4, 4, 2), "agglomerate, ncut.*'spectral'"),
        ("ncut", (0,), (1, 4, 4, 2), "source.granularities"),
        ("ncut", (3,), (4, 4, 2), "shape"),
    ],
)
def test_what_cannot_be_cut_is_refused(name, numbers, shape, message):
    with pytest.raises(ValueError, match=message):
        segment(torch.ones(shape), name, numbers)
