"""Levels of k-means: rows end at the ancestor of their nearest centroid, and rare things keep clusters."""

import numpy as np
import pytest

from fss.clustering import hierarchy, kmeans
from fss.labelling import pseudo
from tests.fss.points import points


def test_most_central_by_hand():
    rows = np.array([[0.0], [3], [1], [10], [14], [11]], np.float32)
    centroids = np.array([[0], [10], [99]], np.float32)
    assert hierarchy.most_central(rows, centroids, 1).tolist() == [0, 3]
    assert hierarchy.most_central(rows, centroids, 2).tolist() == [0, 2, 3, 5]
    assert hierarchy.most_central(rows, centroids, 9).tolist() == [0, 1, 2, 3, 4, 5]


def test_levels_find_groups_of_groups():
    """Two far groups of two groups of eight: the first level finds the four, the second the two."""
    corners = np.array([[0, 0], [0, 9], [900, 0], [900, 9]], np.float32)
    fine = np.repeat(corners, 8, axis=0) + 0.1 * points(32, 2)
    parents, centroids = hierarchy.ancestors(fine, [4, 2], seed=0)
    assert parents.dtype == np.int64
    assert len(set(parents[:16])) == len(set(parents[16:])) == 1
    assert parents[0] != parents[16]
    assert np.allclose(centroids[parents[[0, 16]]], [[0, 4.5], [900, 4.5]], atol=0.3)
    four, _ = hierarchy.ancestors(fine, [4], seed=0)
    assert [len(set(group)) for group in np.split(four, 4)] == [1] * 4
    assert len(set(four)) == 4
    again, _ = hierarchy.ancestors(fine, [4, 2], seed=0)
    assert np.array_equal(parents, again)


def test_resampling_gives_the_sparse_side_more_clusters():
    """On a line, nine tenths of the points lie in its first tenth; spread evenly, one cluster of ten would."""
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.uniform(0, 0.1, 900), generator.uniform(0.1, 1, 100)])[:, None].astype(np.float32)
    flat = kmeans.fit(rows, 10, seed=0)[0]
    fine = kmeans.fit(rows, 100, seed=0)[0]
    levels = hierarchy.ancestors(fine, [10], seed=0)[1]
    assert (levels < 0.1).sum() < (flat < 0.1).sum()


def test_clusters_of_a_hierarchy_return_ancestors():
    """Centroids on the axes; rows, less the centre (1, 1), point along them."""
    axes = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    rows = 1 + 3 * axes[[2, 0, 3, 1]]
    centre = np.ones(2, np.float32)
    plain = pseudo.Clusters(axes, centre)
    assert (plain.assign(rows).tolist(), plain.count) == ([2, 0, 3, 1], 4)
    found = pseudo.Clusters(axes, centre, np.array([0, 1, 0, 2]))
    labels, distances = found.nearest(rows)
    assert (labels.tolist(), found.count) == ([0, 0, 2, 1], 3)
    assert labels.dtype == np.int64
    assert np.allclose(distances, 0, atol=1e-6)


@pytest.mark.parametrize("sizes", [[4, 4], [2, 3], [32], [3, 0]])
def test_levels_that_do_not_get_coarser_are_refused(sizes):
    with pytest.raises(ValueError, match="expected levels of fewer and fewer clusters, at least 1, got"):
        hierarchy.ancestors(points(32), sizes, seed=0)
