"""k-means against plain loops; parts add up to the whole however the points are divided."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fss import rng
from fss.clustering import init as kmeans_init
from fss.clustering import kmeans
from tests.fss.points import integers, loop_assign, points


def test_partial_sums_equal_a_loop():
    rows, centroids = points(60), np.concatenate([points(4, seed=1), np.full((1, 5), 99, np.float32)])
    sums = kmeans.partial_sums(rows, centroids)
    labels, distances = loop_assign(rows, centroids)
    for k in range(5):
        mine = [rows[i].astype(np.float64) for i in range(60) if labels[i] == k]
        assert sums.counts[k] == len(mine)
        assert np.allclose(sums.totals[k], np.sum(mine, axis=0) if mine else 0)
    assert sums.counts[4] == 0
    assert sums.inertia == pytest.approx(sum(distances), rel=1e-5)
    assert (sums.totals.dtype, sums.counts.dtype) == (np.float64, np.int64)


def test_a_part_without_points_adds_nothing():
    sums = kmeans.partial_sums(np.zeros((0, 5), np.float32), points(3))
    assert (sums.totals == 0).all()
    assert sums.counts.tolist() == [0, 0, 0]
    assert sums.inertia == 0


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 6), st.lists(st.integers(0, 60), max_size=5), st.integers(0, 99))
def test_parts_in_any_split_and_order_give_the_same_sums(number, clusters, cuts, seed):
    rows, centroids = integers(number, 3, seed), integers(clusters, 3, seed + 1)
    whole = kmeans.partial_sums(rows, centroids)
    parts = [kmeans.partial_sums(part, centroids) for part in np.split(rows, sorted(min(c, number) for c in cuts))]
    for order in (parts, parts[::-1]):
        added = kmeans.add(order)
        assert np.array_equal(added.totals, whole.totals)
        assert np.array_equal(added.counts, whole.counts)
        assert added.inertia == whole.inertia


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_kept_part_has_the_sums_of_a_new_one_to_the_bit(scale, weighted):
    """However many points have moved before, and whatever the size of their coordinates."""
    generator = np.random.default_rng(0)
    rows = (scale * points(500, 7) * 10.0 ** generator.uniform(-6, 2, (500, 1))).astype(np.float32)
    weights = generator.uniform(0, 3, 500) if weighted else None
    part, centroids, shares = kmeans.Part(rows, weights), rows[:9] + 0, []
    for round_ in range(8):
        labels = part._labels
        kept, fresh = part.sums(centroids), kmeans.partial_sums(rows, centroids, weights)
        for name in ("totals", "weights", "counts", "spread"):
            assert getattr(kept, name).tobytes() == getattr(fresh, name).tobytes()
        if labels is not None:
            shares.append((labels != part._labels).mean())
        centroids = kmeans.step(kept, centroids, seed=round_)
    assert min(shares) < 0.5
    plain = np.stack([rows[part._labels == k].astype(np.float64).sum(axis=0) for k in range(9)])
    assert weighted or np.allclose(kept.totals, plain, rtol=1e-9, atol=1e-12 * np.abs(rows).max())
    fewer = part.sums(centroids[:4])
    assert fewer.totals.tobytes() == kmeans.partial_sums(rows, centroids[:4], weights).totals.tobytes()


def test_a_spread_of_near_points_keeps_its_digits():
    """Lengths of 1e3 and differences of 1e-3: what is left of their squares' difference would be wrong."""
    rows = (1e3 + 1e-3 * points(60, 4)).astype(np.float32)
    centroids = rows[:2].copy()
    labels, distances = loop_assign(rows, centroids)
    expected = np.bincount(labels, distances, minlength=2)
    assert kmeans.partial_sums(rows, centroids).spread == pytest.approx(expected, rel=1e-6)


def test_adding_leaves_the_parts_as_they_are():
    part = kmeans.partial_sums(points(10), points(2, seed=1))
    before = part.totals.copy(), part.counts.copy()
    kmeans.add([part, part])
    assert np.array_equal(part.totals, before[0])
    assert np.array_equal(part.counts, before[1])


def test_step_takes_the_means():
    sums = summed([[2, 4], [9, 0]], [2, 3])
    found = kmeans.step(sums, np.zeros((2, 2), np.float32), seed=0)
    assert found.tolist() == [[1, 2], [3, 0]]
    assert found.dtype == np.float32


def summed(totals, counts, spread=1e9):
    """Sums of points that lie far apart in every cluster, or `spread` of them."""
    counts = np.asarray(counts)
    return kmeans.Sums(np.asarray(totals, float), counts.astype(float), counts, np.broadcast_to(spread, counts.shape))


def test_an_empty_cluster_takes_half_of_the_only_large_one():
    """Cluster 0 is empty; of the others only cluster 1 has more than one point, so it is the donor.

    Its points' squared length is 2 * 2 + 4 * 4, its mean's, and 7, their spread about it.
    """
    sums = summed([[0, 0], [8, 16], [5, 5]], [0, 4, 1], np.array([0, 4 * (7 + 5**2 + 3**2), 8]))
    found = kmeans.step(sums, np.full((3, 2), 7, np.float32), seed=0).astype(float)
    assert np.allclose((found[0] + found[1]) / 2, [2, 4], atol=1e-6)
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(2 * math.sqrt(27) / 1024, rel=1e-3)
    assert found[2].tolist() == [5, 5]


def test_donors_are_drawn_by_size_and_halved_each_time():
    counts = np.array([0, 0, 0, 901, 101, 1])
    sums = summed(100 * np.arange(1.0, 7.0)[:, None] * counts[:, None], counts)
    first = [round(float(kmeans.step(sums, np.zeros((6, 1), np.float32), seed=s)[0, 0]) / 100) for s in range(200)]
    assert set(first) == {4, 5}  # the means of the two large ones, never of the cluster with a single point
    assert 165 <= first.count(4) <= 195  # expected 180
    repeat = [kmeans.step(sums, np.zeros((6, 1), np.float32), seed=1) for _ in range(2)]
    assert np.array_equal(*repeat)


def test_a_cluster_stays_where_it_is_if_no_other_can_share():
    assert kmeans.step(summed([[1], [0]], [1, 0]), np.array([[5], [6]], np.float32), seed=0).tolist() == [[1], [6]]


def test_a_donor_has_points_of_more_than_one_place():
    """Cluster 0 has 90 equal points, however far its centroid was; cluster 1 has two different ones and is halved."""
    rows = np.array([[1, 0]] * 90 + [[0, 8], [0, 9]], np.float32)
    for far in (0, 1e-3, 2):
        centroids = np.array([[1 + far, 0], [0, 8], [90, 90]], np.float32)
        for seed in range(20):
            found = kmeans.step(kmeans.partial_sums(rows, centroids), centroids, seed=seed)
            assert found[0].tolist() == [1, 0]
            assert np.allclose(found[1:], [0, 8.5], atol=0.02)
            assert sorted(kmeans.assign(rows[90:], found)[0].tolist()) == [1, 2]


def test_clusters_of_one_mean_part():
    """{x} and {x + y, x - y} have the mean direction x: the second one leaves it."""
    rows = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], np.float32)
    sums = summed([rows[0], rows[1] + rows[2]], [1, 2], np.array([0, 0.8]))
    found = kmeans.step(sums, np.array([[1, 0], [0.8, 0]], np.float32), seed=0, spherical=True)
    assert found[0].tolist() == [1, 0]
    assert not np.array_equal(*found)


@settings(max_examples=60)
@given(st.integers(2, 11), st.integers(2, 3), st.integers(0, 9999), st.booleans(), st.integers(1, 7))
@example(9, 2, 2, True, 1)  # two directions an ulp apart, which are one place
def test_no_two_centroids_are_equal(number, dims, seed, spherical, iterations):
    """Few places, each held by many points; directions of length 1 where centroids are."""
    places = integers(number, dims, seed) + 0.5
    if spherical:
        places /= np.linalg.norm(places, axis=1, keepdims=True)
    places = places[np.unique(places.round(4), axis=0, return_index=True)[1]]
    rows = np.repeat(places, np.random.default_rng(seed).integers(1, 30, len(places)), axis=0)
    found, _ = kmeans.fit(rows, len(places), seed=seed, method="random", iterations=iterations, spherical=spherical)
    assert len(np.unique(found, axis=0)) == len(places)


@pytest.mark.parametrize("method", ["k-means++", "random"])
def test_fewer_distinct_points_than_clusters_are_refused(method):
    """FAISS goes on in silence and returns centroids of which some are never used."""
    rows = np.repeat(points(3, 4), 30, axis=0)
    centroids, history = kmeans.fit(rows, 3, seed=0, method=method)
    assert {row.tobytes() for row in centroids} == {row.tobytes() for row in rows}
    assert history[-1] == pytest.approx(0, abs=1e-4)
    wanted = r"at least 5 distinct points for 5 clusters, got 3 distinct ones among 90; lower source\.clusters to 3"
    with pytest.raises(ValueError, match=wanted):
        kmeans.fit(rows, 5, seed=0, method=method)
    with pytest.raises(ValueError, match="got 1 distinct ones among 64"):
        kmeans.fit(np.full((64, 3), 0.1, np.float32), 2, seed=0, method=method)


def test_points_that_are_near_but_different_are_told_apart():
    rows = (1 + np.arange(8, dtype=np.float32) * 2**-20)[:, None] * np.ones(4, np.float32)
    found = kmeans.initial_centroids(rows, 8, seed=0)
    assert sorted(found[:, 0].tolist()) == rows[:, 0].tolist()


def test_many_clusters_are_drawn_in_batches(monkeypatch):
    """Two at a time from pairs of equal points: never the same point twice, and all far groups are hit."""
    monkeypatch.setattr(kmeans_init, "_DRAWS", 10)
    groups = 100 * np.arange(20, dtype=np.float32)[:, None] + np.zeros(3, np.float32)
    rows = np.repeat(groups, 2, axis=0)
    found = kmeans.initial_centroids(rows, 20, seed=0)
    assert sorted(found[:, 0].tolist()) == groups[:, 0].tolist()
    with pytest.raises(ValueError, match="got 20 distinct ones among 40"):
        kmeans.initial_centroids(rows, 25, seed=0)


def test_points_wanted_by_hand():
    assert [kmeans_init.points_wanted(k) for k in (1, 1024, 4096, 30_000)] == [65_536, 65_536, 262_144, 2**20]


@settings(max_examples=25)
@given(st.integers(3, 40), st.integers(1, 3), st.integers(0, 99))
def test_a_whole_weight_is_so_many_copies(number, clusters, seed):
    rows, centroids = integers(number, 3, seed), integers(clusters, 3, seed + 1)
    copies = np.random.default_rng(seed).integers(0, 4, number)
    weighted = kmeans.partial_sums(rows, centroids, copies)
    copied = kmeans.partial_sums(np.repeat(rows, copies, axis=0), centroids)
    assert np.array_equal(weighted.totals, copied.totals)
    assert np.array_equal(weighted.weights, copied.counts)
    assert weighted.inertia == copied.inertia
    assert weighted.counts.sum() == number


def test_weights_pull_centroids():
    rows = np.array([[0.0], [1.0], [10.0]], np.float32)
    centroids, history = kmeans.fit(rows, 1, seed=0, weights=np.array([3.0, 1.0, 0.0]))
    assert centroids.tolist() == [[0.25]]
    assert history[-1] == pytest.approx(3 * 0.25**2 + 0.75**2)
    with pytest.raises(ValueError, match=r"expected 3 finite weights from 0, got \(3,\), least -1"):
        kmeans.partial_sums(rows, centroids, np.array([1, -1, 1]))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_restart_wins(seed):
    rows = points(60, 2)
    seeds = [seed, rng.mix(seed, "restart", 1), rng.mix(seed, "restart", 2)]
    each = [kmeans.fit(rows, 6, seed=s, method="random") for s in seeds]
    best = min(each, key=lambda found: found[1][-1])
    centroids, history = kmeans.fit(rows, 6, seed=seed, method="random", restarts=3)
    assert history == best[1]
    assert np.array_equal(centroids, best[0])
    assert len({found[1][-1] for found in each}) > 1


def test_lloyd_goes_on_from_any_state_with_the_same_outcome():
    rows = points(80, 3)
    recipe = kmeans.LloydOptions(5, seed=1, iterations=6, restarts=3, tolerance=0.01)

    def run(state=None):
        return list(
            kmeans.lloyd(
                lambda centroids: kmeans.partial_sums(rows, centroids),
                lambda seed: kmeans.initial_centroids(rows, 5, seed=seed),
                recipe,
                state,
            )
        )

    states = run()
    assert len(states[-1].inertias) == 3
    for number, state in enumerate(states):
        rest = run(state)
        assert len(rest) == len(states) - number - 1
        last = rest[-1] if rest else state
        assert np.array_equal(last.best.centroids, states[-1].best.centroids)
        assert last.best.history == states[-1].best.history
        assert last.inertias == states[-1].inertias


def test_an_empty_cluster_keeps_the_iterations_going():
    """The far centroid is nearest to nothing: it takes half of the other cluster before the loop may end."""
    rows = points(40, 2)
    start = np.array([[0, 0], [90, 90]], np.float32)
    recipe = kmeans.LloydOptions(2, seed=0, iterations=9, tolerance=1.0)
    states = list(kmeans.lloyd(lambda c: kmeans.partial_sums(rows, c), lambda seed: start, recipe))
    assert states[0].now.counts.tolist() == [40, 0]
    assert states[-1].best.counts.all()
    assert len(states) == 2


def test_spherical_centroids_have_length_one():
    found = kmeans.step(summed([[6, 8], [0, 2]], [2, 1]), np.zeros((2, 2), np.float32), seed=0, spherical=True)
    assert np.allclose(found, [[0.6, 0.8], [0, 1]])


@pytest.mark.parametrize("method", ["k-means++", "random"])
def test_initial_centroids_are_distinct_points_and_repeat(method):
    rows = points(30)
    found = kmeans.initial_centroids(rows, 30, seed=3, method=method)
    assert {row.tobytes() for row in found} == {row.tobytes() for row in rows}
    again = kmeans.initial_centroids(rows, 8, seed=3, method=method)
    assert np.array_equal(again, kmeans.initial_centroids(rows, 8, seed=3, method=method))
    assert not np.array_equal(again, kmeans.initial_centroids(rows, 8, seed=4, method=method))


def test_kmeans_plus_plus_spreads():
    """Three far groups of very different sizes: each gets one of three centroids, which uniform draws rarely give."""
    rows = np.concatenate([np.zeros((500, 2)), np.full((3, 2), 1e3), np.full((3, 2), -1e3)]).astype(np.float32)
    rows += points(506, 2)
    for seed in range(10):
        found = kmeans.initial_centroids(rows, 3, seed=seed)
        assert sorted(np.round(found[:, 0] / 1e3).astype(int).tolist()) == [-1, 0, 1]


def test_fit_lowers_the_inertia_and_finds_clear_groups():
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    rows = np.repeat(centres, 50, axis=0) + 0.1 * points(200, 2)
    centroids, history = kmeans.fit(rows, 4, seed=0)
    order = np.lexsort(np.round(centroids).T[::-1])
    assert np.allclose(centroids[order], centres[np.lexsort(centres.T[::-1])], atol=0.1)
    rows = points(300)
    _, history = kmeans.fit(rows, 12, seed=0)
    assert all(late <= early for early, late in itertools.pairwise(history))


def test_converged_by_hand():
    assert not kmeans.converged([5.0])
    assert not kmeans.converged([100.0, 99.0])
    assert kmeans.converged([100.0, 99.9995])
    assert kmeans.converged([0.0, 0.0])
    assert kmeans.converged([100.0, 90.0], tolerance=0.1)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"got 4 points for 5 clusters; lower source\.clusters or sample more"):
        kmeans.initial_centroids(points(4), 5, seed=0)
    with pytest.raises(ValueError, match="expected a k-means init of 'k-means\\+\\+' or 'random', got 'best'"):
        kmeans.initial_centroids(points(4), 2, seed=0, method="best")
