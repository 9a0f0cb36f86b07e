"""k-means on sign codes against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.heads.parts import hamming


def random_codes(sets: int, number: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, (sets, number, bits), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


def loop_cluster(bits, members, start, k, rounds):
    """One set in plain Python: (labels of the members by index, clusters in use)."""
    inside = [i for i in range(len(bits)) if members[i]]
    first = sorted(inside, key=lambda i: -start[i])[:k]
    centroids = [list(bits[i]) for i in first]

    def nearest(i):
        each = [sum(a != b for a, b in zip(bits[i], c, strict=True)) for c in centroids]
        return each.index(min(each))

    labels = {i: nearest(i) for i in inside}
    for _ in range(rounds):
        for number in range(len(centroids)):
            mine = [bits[i] for i in inside if labels[i] == number]
            if mine:
                centroids[number] = [1.0 if sum(column) >= 0 else -1.0 for column in zip(*mine, strict=True)]
        labels = {i: nearest(i) for i in inside}
    return labels, set(labels.values())


def test_codes_are_signs_of_projections():
    planes = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    points = torch.tensor([[[2.0, 3.0], [-1.0, -1.0], [0.0, 0.0]]])
    assert hamming.codes(points, planes).tolist() == [[[1, -1], [-1, 1], [1, 1]]]


@pytest.mark.parametrize("k", [1, 3, 8, 40])
@pytest.mark.parametrize("rounds", [0, 1, 10])
def test_clusters_equal_a_loop(k, rounds):
    bits = random_codes(3, 24, 8)
    g = torch.Generator().manual_seed(1)
    members = torch.rand(3, 24, generator=g) < 0.6
    members[2] = False
    members[2, 5] = True  # a set of one point
    start = torch.rand(24, generator=g)
    labels, used = hamming.cluster(bits, members, start, k, rounds)
    assert used.shape == (3, min(k, 24))
    for number in range(3):
        expected, clusters = loop_cluster(bits[number].tolist(), members[number].tolist(), start.tolist(), k, rounds)
        assert {i: int(labels[number, i]) for i in expected} == expected
        assert set(np.flatnonzero(used[number].numpy()).tolist()) == clusters


@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(0, 12), st.integers(1, 70), st.integers(1, 14), st.integers(0, 4), st.integers(0, 99)
)
def test_clusters_equal_popcounts(sets, number, width, k, rounds, seed):
    """Packed codes and counts of differing bits, a few codes many times over, equal scores and sets without members."""
    generator = np.random.default_rng(seed)
    few = generator.integers(0, 2, (4, width), dtype=np.uint8)
    zeros_and_ones = few[generator.integers(0, 4, (sets, number))] ^ (generator.random((sets, number, width)) < 0.1)
    members = generator.random((sets, number)) < generator.choice([0.0, 0.3, 1.0])
    start = generator.integers(0, 3, number).astype(np.float32)
    bits = torch.from_numpy(zeros_and_ones.astype(np.float32)) * 2 - 1
    labels, used = hamming.cluster(bits, torch.from_numpy(members), torch.from_numpy(start), k, rounds)
    assert used.shape == (sets, min(k, number))
    for i in range(sets):
        expected = popcount_cluster(zeros_and_ones[i], np.flatnonzero(members[i]), start, k, rounds)
        assert {n: int(labels[i, n]) for n in expected} == expected
        assert set(torch.nonzero(used[i])[:, 0].tolist()) == set(expected.values())


def popcount_cluster(bits, inside, start, k, rounds):
    """One set by counts of the bits in which packed codes differ: labels of the members by index."""
    centroids = bits[sorted(inside, key=lambda n: -start[n])[:k]]
    labels: dict[int, int] = {}
    for round_ in range(rounds + 1):
        for number in range(len(centroids) if round_ else 0):
            mine = bits[[n for n in inside if labels[n] == number]]
            if len(mine):
                centroids[number] = 2 * mine.sum(axis=0, dtype=int) >= len(mine)
        packed = np.packbits(centroids, axis=1)
        for n in inside:
            apart = np.bitwise_count(np.packbits(bits[n]) ^ packed).sum(axis=1)
            labels[int(n)] = int(apart.argmin())
    return labels


def test_no_clusters_are_refused():
    with pytest.raises(ValueError, match="expected at least 1 cluster, got 0"):
        hamming.cluster(random_codes(1, 6, 4), torch.ones(1, 6, dtype=torch.bool), torch.arange(6.0), 0, 2)


def test_a_set_without_members_uses_no_cluster():
    _, used = hamming.cluster(random_codes(1, 6, 4), torch.zeros(1, 6, dtype=torch.bool), torch.arange(6.0), 3, 2)
    assert not used.any()


def test_totals_equal_a_loop_and_pass_gradients():
    g = torch.Generator().manual_seed(0)
    values = torch.randn(2, 9, 3, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 9), generator=g)
    members = torch.rand(2, 9, generator=g) < 0.7
    sums, counts = hamming.totals(values, labels, members, 5)
    for number in range(2):
        for k in range(5):
            mine = [values[number, i] for i in range(9) if labels[number, i] == k and members[number, i]]
            assert counts[number, k] == len(mine)
            assert torch.allclose(sums[number, k], sum(mine, torch.zeros(3, dtype=torch.float64)))
    assert torch.autograd.gradcheck(lambda v: hamming.totals(v, labels, members, 5)[0], values.requires_grad_())
