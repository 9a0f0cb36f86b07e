"""Agglomeration by brute force, and means of segments by hand."""

import numpy as np
import pytest
import torch

from fss.heads.parts.agglomeration import agglomerate, averaging, segments


def unit(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_segments_equal_brute_force(tau, seed):
    tokens = unit((14, 3), seed)
    cosine = tokens @ tokens.T
    groups = [[i] for i in range(14)]
    while len(groups) > 1:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        likeness = [cosine[np.ix_(groups[a], groups[b])].mean() for a, b in pairs]
        if max(likeness) < tau:
            break
        a, b = pairs[int(np.argmax(likeness))]
        groups[b] += groups.pop(a)
    labels = agglomerate(tokens, tau)
    assert {frozenset(g) for g in groups} == {frozenset(np.flatnonzero(labels == v)) for v in range(labels.max() + 1)}


def test_plain_empty_and_single_tokens_have_segments():
    assert agglomerate(np.full((5, 4), 0.5, np.float32), 1.0).max() == 0
    assert sorted(agglomerate(np.zeros((3, 4), np.float32), 0.5)) == [0, 1, 2]
    assert agglomerate(unit((1, 4)), 0.5).tolist() == [0]


def test_images_have_segments_of_their_own():
    tokens = torch.from_numpy(np.stack([unit((14, 3), seed).T for seed in (0, 1)]))
    found = segments(tokens, 0.3)
    assert [row.tolist() for row in found] == [agglomerate(image.T.numpy(), 0.3).tolist() for image in tokens]


def test_means_of_segments_by_hand():
    found = averaging(torch.tensor([[1, 0, 1], [0, 0, 0]])) @ torch.tensor([2.0, 7.0, 4.0])
    assert torch.allclose(found, torch.tensor([[7.0, 3.0], [13 / 3, 0.0]]))
