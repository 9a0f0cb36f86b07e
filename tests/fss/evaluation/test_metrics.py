"""Counts per pixel by brute force, figures by hand, and the field's definitions kept apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fss.evaluation import metrics
from fss.evaluation.metrics import FIELDS, MODEL, Counts

SHAPE = (5, 7)


def brute_force(prediction: np.ndarray, truth: np.ndarray, ways: int) -> list[Counts]:
    """A loop over pixels; background counts go to the first way."""
    rows = [dict.fromkeys(FIELDS, 0) for _ in range(ways)]
    for said, real in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if real == 255:
            continue
        rows[0]["background_intersection"] += said == 0 and real == 0
        rows[0]["background_union"] += said == 0 or real == 0
        for way, row in enumerate(rows, 1):
            row["intersection"] += said == way and real == way
            row["union"] += way in (said, real)
            row["predicted"] += said == way
            row["true"] += real == way
    return [Counts(**row) for row in rows]


def labels(values: list[int]) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.uint8, SHAPE, elements=st.sampled_from(values))


@settings(max_examples=60)
@given(st.integers(1, 3), st.data())
def test_counts_equal_a_loop_over_pixels(ways, data):
    known = list(range(ways + 1))
    prediction, truth = data.draw(labels(known)), data.draw(labels([*known, 255]))
    assert metrics.count(prediction, truth, ways) == brute_force(prediction, truth, ways)


def test_void_is_in_no_count():
    truth = np.array([[1, 0, 255, 255]], np.uint8)
    with_void = [metrics.count(np.array([[1, 1, *end]], np.uint8), truth) for end in ((0, 0), (1, 1))]
    assert with_void[0] == with_void[1] == [Counts(1, 2, 0, 1, 2, 1)]
    empty = metrics.count(np.ones((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert empty == [Counts(0, 0, 0, 0, 0, 0)]


def test_ways_by_hand():
    """A thing of the second way taken for the first is wrong in both, and foreground for the background."""
    truth = np.array([[1, 1, 2, 2, 0, 0, 255]], np.uint8)
    prediction = np.array([[1, 2, 2, 1, 0, 2, 2]], np.uint8)
    assert metrics.count(prediction, truth, 2) == [Counts(1, 3, 1, 2, 2, 2), Counts(1, 4, 0, 0, 3, 2)]


def test_booleans_are_predictions():
    truth = np.array([[1, 0]], np.uint8)
    assert metrics.count(np.array([[True, False]]), truth) == [Counts(1, 1, 1, 1, 1, 1)]


def test_other_shapes_and_values_are_refused():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"prediction and truth of one shape, got \(2, 3\) and \(2, 2\)"):
        metrics.count(np.zeros((2, 3), np.uint8), zeros)
    with pytest.raises(ValueError, match=r"expected a truth of 0, 1, 255 \(void\), got \[15\]"):
        metrics.count(zeros, np.array([[0, 15], [0, 255]]))
    with pytest.raises(ValueError, match=r"expected a prediction of 0, 1, got \[255\]"):
        metrics.count(np.array([[0, 255], [0, 0]]), zeros)
    two = np.full((2, 2), 2, np.uint8)
    with pytest.raises(ValueError, match=r"expected a truth of 0, 1, 255 \(void\), got \[2\]"):
        metrics.count(zeros, two)
    assert metrics.count(zeros, two, 2)[1].true == 4


def columns(*rows: tuple[int, ...], model: bool = False) -> dict[str, np.ndarray]:
    """Columns of rows (class_id, way, counts..., and with `model` the counts at the model's resolution...)."""
    names = ("class_id", "way", *FIELDS, *(f"{MODEL}{name}" for name in FIELDS if model))
    return dict(zip(names, np.array(rows, dtype=np.int64).reshape(-1, len(names)).T, strict=True))


#: Class 3: IoU 10/40 and 30/40 pooled to 40/80; class 7: one episode, 5/20. Background: 210/255.
ROWS = [(3, 0, 10, 40, 60, 90, 20, 30), (3, 0, 30, 40, 60, 70, 35, 35), (7, 0, 5, 20, 90, 95, 5, 10)]


def test_figures_by_hand():
    found = metrics.summarise(columns(*ROWS))
    assert found.pop("classes") == {
        3: pytest.approx({"iou": 40 / 80, "iou_episode_mean": 0.5, "area_ratio": 55 / 65, "episodes": 2}),
        7: pytest.approx({"iou": 5 / 20, "iou_episode_mean": 5 / 20, "area_ratio": 0.5, "episodes": 1}),
    }
    assert found == pytest.approx(
        {
            "miou": (40 / 80 + 5 / 20) / 2,
            "miou_episode_mean": ((10 / 40 + 30 / 40) / 2 + 5 / 20) / 2,
            "miou_with_background": (40 / 80 + 5 / 20 + 210 / 255) / 3,
            "fb_iou": (45 / 100 + 210 / 255) / 2,
            "area_ratio": 60 / 75,
            "episodes": 3,
        }
    )


def test_pooled_and_episode_means_differ_where_they_should():
    found = metrics.summarise(columns((1, 0, 90, 100, 0, 0, 90, 100), (1, 0, 0, 10, 0, 0, 0, 10)))
    assert found["miou"] == pytest.approx(90 / 110)
    assert found["miou_episode_mean"] == pytest.approx(0.45)


def test_the_models_resolution_has_its_own_figures():
    halves = (1, 2, 1, 4, 9, 9)
    found = metrics.summarise(columns(*((*row, *halves) for row in ROWS), model=True))
    coarse = found.pop("model_resolution")
    assert found == metrics.summarise(columns(*ROWS))
    expected = {"miou": 1 / 2, "miou_episode_mean": 1 / 2, "miou_with_background": (1 / 2 + 1 / 2 + 1 / 4) / 3}
    assert coarse == pytest.approx(expected | {"fb_iou": (1 / 2 + 1 / 4) / 2})
    swapped = [
        (*row, *ROWS[i][2:]) for row, i in zip(ROWS, (1, 0, 2), strict=True)
    ]  # the same pairs of class and count
    coarse = metrics.summarise(columns(*swapped, model=True))["model_resolution"]
    assert coarse == {name: found[name] for name in coarse}


def test_rows_are_added_up_over_ways():
    """Two episodes of two ways: background counts stand once an episode, the foreground is that of every way."""
    found = metrics.summarise(
        columns(
            (1, 0, 6, 10, 80, 100, 8, 8),
            (2, 1, 2, 10, 0, 0, 2, 10),
            (2, 0, 4, 10, 70, 100, 6, 8),
            (5, 1, 3, 10, 0, 0, 5, 8),
        )
    )
    assert found["episodes"] == 2
    assert {c: (v["iou"], v["episodes"]) for c, v in found["classes"].items()} == {
        1: (0.6, 1),
        2: (0.3, 2),
        5: (0.3, 1),
    }
    assert found["miou"] == pytest.approx((0.6 + 0.3 + 0.3) / 3)
    assert found["miou_with_background"] == pytest.approx((0.6 + 0.3 + 0.3 + 150 / 200) / 4)
    assert found["fb_iou"] == pytest.approx((15 / 40 + 150 / 200) / 2)
    assert found["area_ratio"] == pytest.approx(21 / 34)


@settings(max_examples=40)
@given(st.integers(2, 60), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(number, random):
    rows = [(random.randrange(5), 0, *(random.randrange(1, 999) for _ in range(12))) for _ in range(number)]
    found = metrics.summarise(columns(*rows, model=True))
    random.shuffle(rows)
    assert metrics.summarise(columns(*rows, model=True)) == found


def test_nothing_to_find_and_nothing_found_is_right():
    found = metrics.summarise(columns((1, 0, 0, 0, 0, 0, 0, 0)))
    assert (found["miou"], found["miou_episode_mean"], found["fb_iou"], found["area_ratio"]) == (1, 1, 1, 1)


def test_large_sums_do_not_overflow():
    assert metrics.summarise(columns(*[(1, 0, 2**33, 2**34, 0, 1, 2**33, 2**34)] * 100))["miou"] == 0.5


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="expected at least one episode, got none; the fold has no class with enough"):
        metrics.summarise(columns())
