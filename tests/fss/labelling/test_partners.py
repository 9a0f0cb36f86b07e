"""Tasks of hand-made label maps, masks and descriptors: each figure is known."""

import numpy as np
import pytest

from fss.labelling import partners
from fss.labelling.partners import ObjectFits, TaskSums
from fss.labelling.quality import overlap

#: Label 1 is an object of class 5 but for a pixel, label 2 is half of class 7, label 3 hardly so, label 4 is void.
LAYER = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 3], [3, 3, 3, 4]])
MASK = np.array([[5, 5, 7, 0], [5, 0, 7, 0], [7, 7, 0, 0], [0, 0, 0, 255]])


def test_how_labels_fit_objects_by_hand():
    found = partners.fit(overlap(LAYER, MASK))
    assert found == {
        1: (5, pytest.approx(3 / 4), pytest.approx(3 / 4)),
        2: (7, pytest.approx(2 / 6), pytest.approx(2 / 4)),
        3: (7, pytest.approx(2 / 9), pytest.approx(2 / 7)),
    }  # label 4 is void


def test_without_objects_labels_fit_none():
    assert partners.fit(overlap(LAYER, np.zeros((4, 4), int))) == dict.fromkeys((1, 2, 3, 4), (0, 0.0, 0.0))


def test_a_label_beside_all_objects_names_none():
    assert partners.fit(overlap(np.array([[1, 2]]), np.array([[4, 0]])))[2] == (0, 0.0, 0.0)


def rows(*angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


#: Six regions of five images, at angles. In cluster 0 the first two are near, but of one image; the third is nearest
#: to both, and the second to it. The sixth is alone in its cluster.
COLUMNS = {
    "key": np.array(["a", "a", "b", "c", "d", "e"]),
    "label": np.array([0, 0, 0, 1, 1, 2]),
    "descriptor": rows(0.0, 0.1, 0.3, 0.0, 1.0, 0.0),
    "area": np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    "border": np.array([0.0, 0.0, 0.3, 0.3, 0.6, 0.6]),
}


def test_partners_are_of_the_cluster_and_of_another_image():
    nearest, cosine = partners.partners(COLUMNS["key"], COLUMNS["label"], COLUMNS["descriptor"])
    assert nearest.tolist() == [2, 2, 1, 4, 3, -1]
    assert cosine == pytest.approx([np.cos(0.3), np.cos(0.2), np.cos(0.2), np.cos(1), np.cos(1), 0])


def test_partners_do_not_depend_on_how_many_rows_are_looked_at_together(monkeypatch):
    given = [COLUMNS[name] for name in ("key", "label", "descriptor")]
    whole = partners.partners(*given)
    monkeypatch.setattr(partners, "_ROWS", 1)
    for one, other in zip(whole, partners.partners(*given), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_figures_without_masks():
    assert partners.sum_tasks(COLUMNS, ObjectFits.empty(6)).figures() == pytest.approx(
        {
            "regions": 6,
            "area": 0.35,
            "border": 0.3,
            "tasks": 5 / 6,
            "likeness": (np.cos(0.3) + 2 * np.cos(0.2) + 2 * np.cos(1)) / 5,
            "mutual": 4 / 5,  # the first region's partner prefers another
        }
    )


def test_figures_of_masks():
    """Tasks 0-2, 1-2, 2-1 of one class, of which the first is clean on one side only; 3-4 not; image e has no mask."""
    fits = ObjectFits(
        known=np.array([True] * 5 + [False]),
        thing=np.array([8, 8, 8, 8, 3, 0]),
        iou=np.array([0.5, 0.6, 0.9, 0.9, 0.9, 0.0]),  # exactly 0.5 is not above
        inside=np.array([0.5, 0.51, 0.9, 0.9, 0.9, 0.0]),
    )
    found = partners.sum_tasks(COLUMNS, fits).figures()
    assert {name: found[name] for name in ("object", "inside", "same_class", "clean")} == pytest.approx(
        {"object": 4 / 5, "inside": 4 / 5, "same_class": 3 / 5, "clean": 2 / 5}
    )


def test_two_regions_without_any_object_are_of_no_class():
    fits = ObjectFits(np.ones(6, bool), np.zeros(6, np.int64), np.zeros(6), np.zeros(6))
    found = partners.sum_tasks(COLUMNS, fits).figures()
    assert found["same_class"] == found["clean"] == found["object"] == 0


def test_sums_of_groups_add():
    """Groups that share neither image nor cluster have the sums of both together."""
    fits = ObjectFits(np.ones(6, bool), np.array([8, 8, 8, 3, 3, 1]), np.full(6, 0.7), np.full(6, 0.7))

    def part(chosen):
        taken = {name: values[chosen] for name, values in COLUMNS.items()}
        return partners.sum_tasks(taken, ObjectFits(*(values[chosen] for values in vars(fits).values())))

    added = part(slice(0, 3)) + part(slice(3, None)) + TaskSums()
    assert added.figures() == pytest.approx(partners.sum_tasks(COLUMNS, fits).figures())
