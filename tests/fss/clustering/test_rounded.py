"""The search in bfloat16: the labels of float32, to the last of them, and few second looks."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fss import precision
from fss.clustering import assign, kmeans, rounded
from fss.clustering.rounded import Rounded
from tests.fss.points import points

pytestmark = pytest.mark.skipif(not precision._MULTIPLIES, reason="this processor does not multiply bfloat16")


def rows_of(kind: str, number: int, dims: int, scale: float, seed: int) -> np.ndarray:
    """Rows that bfloat16 rounds by chance, that lie midway between two of its numbers, or that are all of one sign."""
    generator = np.random.default_rng(seed)
    if kind == "midway":
        steps = generator.integers(128, 256, (number, dims)) + 0.5
        return (scale * steps / 128 * generator.choice([-1, 1], (number, dims))).astype(np.float32)
    rows = scale * generator.standard_normal((number, dims))
    return (np.abs(rows) if kind == "one sign" else rows).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["chance", "midway", "one sign"]),
    st.integers(1, 700),
    st.sampled_from([0.0, 1e-30, 1e-9, 1.0, 1e6]),
    st.sampled_from([1e-9, 1e-3, 1.0, 1e6]),
    st.integers(0, 9999),
)
@example("midway", 1, 1.0, 1.0, 0)
def test_no_product_is_further_off_than_the_slack(kind, dims, scale, other, seed):
    """So it is never below 0, and of the nearest centroid within twice the slack of the smallest."""
    rows, centroids = rows_of(kind, 20, dims, scale, seed), rows_of(kind, 30, dims, other, seed + 1)
    search = Rounded(rows)
    target = rounded._Centroids.of(centroids, search._rows.shape[1])
    slack = search._give_slack(target).astype(np.float64)[:, None]
    exact = np.square(rows[:, None].astype(np.float64) - centroids[None]).sum(axis=2) / 2
    summed = (search._rows.double() @ target.rows.double().T).numpy()
    assert (np.abs(summed - slack - exact) <= slack).all()
    made = torch.mm(search._rows, target.rows.T).double().numpy()
    assert (made >= 0).all()
    assert (np.abs(made - summed) <= (1.01 * 2.0**-8 + dims * 2.0**-22) * (summed + slack + exact)).all()


@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize(("many", "table"), [(rounded._MANY, rounded._TABLE), (3, 5)])
def test_labels_are_those_of_float32(monkeypatch, spread, many, table):
    """Of points that lie near the middle of two centroids or of many: nearer than bfloat16 and float32 can tell."""
    monkeypatch.setattr(rounded, "_MANY", many)
    monkeypatch.setattr(rounded, "_TABLE", table)
    rounded._prepared.cache_clear()
    base, generator = points(60, 96), np.random.default_rng(3)
    centroids = np.concatenate([base, base[:1] + spread * points(30, 96, seed=4), base[:5]])
    first, second = generator.integers(len(centroids), size=(2, 900))
    aside = 10.0 ** generator.uniform(-9, 0, (900, 1)) * points(900, 96, seed=5)
    rows = np.concatenate([((centroids[first] + centroids[second]) / 2 + aside).astype(np.float32), centroids])
    found = Rounded(rows).labels(centroids)
    assert np.array_equal(found, assign.labels_of(rows, centroids))
    monkeypatch.setattr(rounded, "_PRODUCTS", 100 * len(centroids))
    assert np.array_equal(found, Rounded(rows).labels(centroids))
    cut = [Rounded(part).labels(centroids) for part in np.split(rows, [1, 333])]
    assert np.array_equal(found, np.concatenate(cut))
    exact = np.square(rows[:, None].astype(np.float64) - centroids[None]).sum(axis=2)
    assert (exact[np.arange(len(rows)), found] <= exact.min(axis=1) + 1e-9).all()


@pytest.mark.parametrize(("number", "clusters"), [(0, 3), (1, 1), (7, 1), (50, 80)])
def test_any_numbers_of_points_and_centroids(number, clusters):
    rows, centroids = points(number, 5), points(clusters, 5, seed=1)
    assert np.array_equal(Rounded(rows).labels(centroids), assign.labels_of(rows, centroids))


def test_of_equal_centroids_the_first_has_all_points():
    rows = points(300, 40)
    centroids = np.concatenate([np.repeat(points(1, 40, seed=1), 70, axis=0), points(2, 40, seed=2)])
    found = Rounded(rows).labels(centroids)
    assert set(found) <= {0, 70, 71}
    assert np.array_equal(found, assign.labels_of(rows, centroids))


def test_few_points_are_looked_at_again(monkeypatch):
    asked = []
    real = Rounded._products
    monkeypatch.setattr(Rounded, "_products", lambda self, *given: asked.append(len(given[0])) or real(self, *given))
    Rounded(points(3000, 64)).labels(points(40, 64, seed=1))
    assert 0 < sum(asked) < 3000 * 40 / 50


@pytest.mark.parametrize("scale", [1e-20, 1e15, 1e25])
def test_lengths_that_bfloat16_does_not_take_go_the_way_of_float32(monkeypatch, scale):
    monkeypatch.setattr(rounded, "_FEW", 0)
    rows, centroids = points(50, 4), points(6, 4, seed=1)
    assert rounded.pays(300)
    assert Rounded(scale * rows).labels(scale * centroids) is None
    if scale < 1e18:
        assert np.array_equal(kmeans.Part(scale * rows)._assigned(scale * centroids), assign.labels_of(rows, centroids))
    else:
        with pytest.raises(ValueError, match="scale the points"):
            kmeans.partial_sums(scale * rows, scale * centroids)


def test_bad_points_and_centroids_are_told_as_ever(monkeypatch):
    monkeypatch.setattr(rounded, "_FEW", 0)
    rows = points(50, 4)
    with pytest.raises(ValueError, match="1 of 50 rows with NaN"):
        kmeans.partial_sums(np.where(np.arange(50)[:, None] == 3, np.nan, rows), rows[:5])
    with pytest.raises(ValueError, match="1 of 5 rows with NaN"):
        kmeans.partial_sums(rows, np.where(np.arange(5)[:, None] == 3, np.nan, rows[:5]))
    with pytest.raises(ValueError, match="one dimension"):
        kmeans.partial_sums(rows, points(5, 3))


def test_a_part_kept_in_bfloat16_counts_its_memory_and_sums_as_without(monkeypatch):
    rows, centroids = points(900, 24), points(11, 24, seed=1)
    plain = kmeans.Part(rows)
    expected = plain.sums(centroids)
    monkeypatch.setattr(rounded, "_FEW", 0)
    part = kmeans.Part(rows)
    made = part.sums(centroids)
    for name, array in vars(expected).items():
        assert array.tobytes() == getattr(made, name).tobytes()
    assert part.nbytes - plain.nbytes == 900 * (2 * 32 + 12)
