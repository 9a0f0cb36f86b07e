"""Figures of clusters and regions against values computed by hand, brute force and scikit-learn."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fss.labelling import quality
from fss.labelling.quality import MaskSums

TABLE = np.array([[8, 2, 0], [1, 5, 0], [0, 0, 4], [2, 0, 0]])  # 4 clusters, 3 classes of 11, 7 and 4 pixels
tables = arrays.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.integers(0, 9)).filter(
    lambda table: table.sum() > 0
)


def test_agreement_by_hand():
    found = quality.agreement(TABLE)
    assert found["purity"] == pytest.approx((8 + 5 + 4 + 2) / 22)
    assert found["accuracy"] == pytest.approx((8 + 5 + 4) / 22)  # the fourth cluster is left over: its pixels are wrong
    assert found["miou"] == pytest.approx((8 / (10 + 11 - 8) + 5 / (6 + 7 - 5) + 1) / 3)


def test_a_class_without_a_cluster_has_no_iou_and_a_class_without_pixels_does_not_count():
    found = quality.agreement(np.array([[5, 3, 0]]))
    assert found == pytest.approx({"nmi": 0, "purity": 5 / 8, "accuracy": 5 / 8, "miou": (5 / 8 + 0) / 2})


def test_perfect_and_independent_clusters():
    assert quality.agreement(np.array([[0, 4], [7, 0]])) == pytest.approx(
        dict.fromkeys(("nmi", "purity", "accuracy", "miou"), 1)
    )
    assert quality.agreement(np.array([[2, 4], [3, 6]]))["nmi"] == pytest.approx(0, abs=1e-12)


@given(tables)
def test_hungarian_accuracy_is_that_of_the_best_of_all_matchings(table):
    size = max(table.shape)
    square = np.zeros((size, size), dtype=np.int64)
    square[: table.shape[0], : table.shape[1]] = table
    best = max(sum(square[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(size)))
    assert quality.agreement(table)["accuracy"] == pytest.approx(best / table.sum())


@given(tables)
def test_nmi_is_scikit_learns(table):
    metrics = pytest.importorskip("sklearn.metrics")
    mine, true = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    assert quality.agreement(table)["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(true, mine), abs=1e-9)


@pytest.mark.parametrize("table", [np.zeros((2, 2), int), np.array([[1, -1], [3, 0]]), np.array([3])])
def test_a_table_of_nothing_is_refused(table):
    with pytest.raises(ValueError, match=r"expected a \(clusters, classes\) table"):
        quality.agreement(table)


def test_entropy_of_sizes():
    assert quality.entropy(np.array([3, 3, 3])) == pytest.approx(1)
    assert quality.entropy(np.array([5, 0, 0])) == 0
    assert quality.entropy(np.array([1, 1, 0, 0])) == pytest.approx(0.5)  # log 2 of log 4
    assert quality.entropy(np.array([4])) == 0


# Sums over regions


def regions(rows: np.ndarray, seed: int = 0):
    """Arguments of `sum_regions` for rows that are assigned to two centroids, with a brute-force assignment."""
    random = np.random.default_rng(seed)
    centroids = np.array([[1.0, 0, 0], [0, 1, 0]])
    distances = ((rows[:, None] - centroids) ** 2).sum(axis=2)
    label = distances.argmin(axis=1)
    area = random.uniform(0.001, 1, len(rows))
    keys = np.array([f"k{i // 3}" for i in range(len(rows))])
    return keys, label, area, area / 2, area > 0.3, rows, (label, distances.min(axis=1)), np.ones(2)


def unit_rows(number: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(number, 3))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_sums_of_parts_are_the_sum_of_the_whole():
    whole = regions(unit_rows(12))
    parts = [tuple(a[s] if isinstance(a, np.ndarray) else a for a in whole[:6]) for s in (np.s_[:6], np.s_[6:])]
    found = [
        quality.sum_regions(*part, (whole[6][0][s], whole[6][1][s]), np.ones(2))
        for part, s in zip(parts, (np.s_[:6], np.s_[6:]), strict=True)
    ]
    for field in dataclasses.fields(quality.RegionSums):
        left, right = (getattr(sums, field.name) for sums in (found[0] + found[1], quality.sum_regions(*whole)))
        np.testing.assert_allclose(left, right, err_msg=field.name)


def test_sums_of_regions_by_hand():
    keys = np.array(["a", "a", "b", "c"])
    sums = quality.sum_regions(
        keys, np.array([0, 0, 0, 2]), np.array([0.25, 0.5, 1.0, 0.001]), np.array([0, 0.5, 1, 0]),
        np.array([True, True, False, False]), np.eye(4), (np.array([0, 1, 0, 2]), np.full(4, 0.5)), np.ones(3),
    )  # fmt: skip
    assert sums.regions.tolist() == [3, 0, 1]
    assert sums.images.tolist() == [2, 0, 1]
    assert sums.area.tolist() == [1.75, 0, 0.001]
    assert sums.border.tolist() == [1.5, 0, 0]
    assert np.flatnonzero(sums.areas).tolist() == [0, 249, 499, 999]
    assert np.flatnonzero(sums.usable).tolist() == [249, 499]
    assert (int(sums.strayed), float(sums.inertia)) == (1, 2.0)
    assert quality.quantiles(sums.areas) == {"p10": 0.001, "p25": 0.001, "p50": 0.25, "p75": 0.5, "p90": 1.0}
    assert quality.quantiles(np.zeros(quality.BINS, int)) == {}


def test_explained_variance_is_that_of_the_rows():
    rows = unit_rows(30)
    arguments = regions(rows)
    total, left = ((rows - rows.mean(axis=0)) ** 2).sum(), 0.0
    for cluster, centroid in enumerate(np.eye(3)[:2]):
        mine = rows[arguments[1] == cluster]
        left += ((mine - (mine @ centroid).mean() * centroid) ** 2).sum()
    assert quality.explained(quality.sum_regions(*arguments)) == pytest.approx(1 - left / total)
    same = regions(np.tile([[1.0, 0, 0]], (4, 1)))
    assert quality.explained(quality.sum_regions(*same)) == 0  # nothing varies, nothing is explained


# Regions and objects

MASK = np.array(
    [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 0, 255],
        [2, 2, 0, 255],
    ]
)
LAYERS = np.array(
    [
        [[5, 5, 5, 7], [5, 5, 5, 7], [5, 5, 5, 7], [5, 5, 5, 7]],  # 7 holds half of class 1, and void
        [[5, 5, 3, 3], [5, 5, 3, 3], [4, 5, 3, 3], [4, 5, 3, 3]],  # 3 holds class 1 and 2 pixels of background
    ]
)


def test_objects_by_hand():
    sums = MaskSums()
    sums.take(LAYERS, MASK, usable={(0, 7), (1, 4)})
    found = sums.matches()
    # Class 1 of 4 pixels: layer 0 has 7 (2 pixels beside void: IoU 2/4), layer 1 has 3 (6 pixels: IoU 4/6).
    # Class 2 of 4 pixels: layer 0 has 5 (12 pixels: IoU 4/12), layer 1 has 4 (2 pixels: IoU 2/4).
    assert found["0"]["iou"] == pytest.approx((2 / 4 + 4 / 12) / 2)
    assert found["0"]["area_ratio"] == pytest.approx(np.sqrt(2 / 4 * 12 / 4))
    assert found["1"]["iou"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert found["all"] == pytest.approx(
        {
            "objects": 2,
            "iou": (4 / 6 + 2 / 4) / 2,
            "found": 1,
            "completeness": (1 + 2 / 4) / 2,
            "precision": (4 / 6 + 1) / 2,
            "area_ratio": np.sqrt(6 / 4 * 2 / 4),
        }
    )
    assert found["usable"]["iou"] == pytest.approx((2 / 4 + 2 / 4) / 2)  # 7 for class 1, 4 for class 2
    assert found["usable"]["area_ratio"] == pytest.approx(2 / 4)
    table, classes = sums.table(8, layer=0)
    assert classes.tolist() == [0, 1, 2]
    assert {k: row.tolist() for k, row in enumerate(table) if row.any()} == {5: [6, 2, 4], 7: [0, 2, 0]}
    assert sums.table(8)[0].sum() == 2 * 14  # void counts nowhere


def test_an_object_without_a_usable_region_counts_as_missed():
    sums = MaskSums()
    sums.take(LAYERS, MASK, usable=set())
    assert sums.matches()["usable"] == {
        "objects": 2, "iou": 0, "found": 0, "completeness": 0, "precision": 0, "area_ratio": 0
    }  # fmt: skip


def test_mask_sums_add():
    once, twice = MaskSums(), MaskSums()
    once.take(LAYERS, MASK, {(0, 5)})
    for _ in range(2):
        twice.take(LAYERS, MASK, {(0, 5)})
    joined = MaskSums()
    joined.add(once)
    joined.add(once)
    assert (joined.images, joined.pixels) == (twice.images, twice.pixels)
    assert joined.matches() == twice.matches()
    assert once.matches()["all"]["objects"] == 2  # what was taken in is not changed


def test_an_image_of_background_has_no_objects():
    sums = MaskSums()
    sums.take(LAYERS, np.zeros((4, 4), int), {(0, 5)})
    assert sums.matches()["all"]["objects"] == 0
    with pytest.raises(ValueError, match=r"of one size, got \(4, 4\) and \(2, 2\)"):
        sums.take(LAYERS, np.zeros((2, 2), int), set())
