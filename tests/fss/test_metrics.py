"""Counts per pixel by brute force, figures by hand, and the field's definitions kept apart."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fss import metrics
from fss.metrics import Counts

SHAPE = (5, 7)


def brute_force(prediction: np.ndarray, truth: np.ndarray) -> Counts:
    found = dict.fromkeys((field.name for field in dataclasses.fields(Counts)), 0)
    for yes, real in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if real == 255:
            continue
        found["intersection"] += yes == 1 and real == 1
        found["union"] += yes == 1 or real == 1
        found["background_intersection"] += yes == 0 and real == 0
        found["background_union"] += yes == 0 or real == 0
        found["predicted"] += yes == 1
        found["true"] += real == 1
    return Counts(**found)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1])),
    arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 255])),
)
def test_counts_equal_a_loop_over_pixels(prediction, truth):
    assert metrics.count(prediction, truth) == brute_force(prediction, truth)


def test_void_is_in_no_count():
    truth = np.array([[1, 0, 255, 255]], np.uint8)
    with_void = [metrics.count(np.array([[1, 1, *end]], np.uint8), truth) for end in ((0, 0), (1, 1))]
    assert with_void[0] == with_void[1] == Counts(1, 2, 0, 1, 2, 1)
    empty = metrics.count(np.ones((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert empty == Counts(0, 0, 0, 0, 0, 0)


def test_booleans_are_predictions():
    truth = np.array([[1, 0]], np.uint8)
    assert metrics.count(np.array([[True, False]]), truth) == Counts(1, 1, 1, 1, 1, 1)


def test_other_shapes_and_values_are_refused():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"prediction and truth of one shape, got \(2, 3\) and \(2, 2\)"):
        metrics.count(np.zeros((2, 3), np.uint8), zeros)
    with pytest.raises(ValueError, match=r"expected a truth of 0, 1 and 255 \(void\), got \[0, 15\]"):
        metrics.count(zeros, np.array([[0, 15], [0, 0]]))
    with pytest.raises(ValueError, match=r"expected a prediction of 0 and 1, got \[0, 255\]"):
        metrics.count(np.array([[0, 255], [0, 0]]), zeros)


def test_the_larger_logit_wins_at_the_pixels():
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 1, 0] = torch.tensor([-1.0, 1.0, 1.0])
    found = metrics.predict(logits, (2, 9), corners=True)
    assert found.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1]] * 2  # the tie at the third pixel is background
    assert found.dtype == np.uint8


def row(class_id: int, *counts: int) -> dict[str, int]:
    return {"class_id": class_id, **dataclasses.asdict(Counts(*counts))}


#: Class 3: IoU 10/40 and 30/40 pooled to 40/80; class 7: one episode, 5/10.
ROWS = [row(3, 10, 40, 60, 90, 20, 30), row(3, 30, 40, 60, 70, 35, 35), row(7, 5, 10, 90, 95, 5, 10)]


def test_figures_by_hand():
    found = metrics.summarise(ROWS)
    assert found["miou"] == pytest.approx((40 / 80 + 5 / 10) / 2)
    assert found["miou_episode_mean"] == pytest.approx(((10 / 40 + 30 / 40) / 2 + 5 / 10) / 2)
    assert found["fb_iou"] == pytest.approx((45 / 90 + 210 / 255) / 2)
    assert found["area_ratio"] == pytest.approx(60 / 75)
    assert found["episodes"] == 3
    assert found["classes"][3] == pytest.approx(
        {"iou": 0.5, "iou_episode_mean": 0.5, "area_ratio": 55 / 65, "episodes": 2}
    )
    assert found["classes"][7] == pytest.approx({"iou": 0.5, "iou_episode_mean": 0.5, "area_ratio": 0.5, "episodes": 1})


def test_pooled_and_episode_means_differ_where_they_should():
    rows = [row(1, 90, 100, 0, 0, 90, 100), row(1, 0, 10, 0, 0, 0, 10)]
    found = metrics.summarise(rows)
    assert found["miou"] == pytest.approx(90 / 110)
    assert found["miou_episode_mean"] == pytest.approx(0.45)


def test_the_order_and_division_of_rows_change_nothing():
    rows = [row(c % 4, i, i + 9, 50, 60, i, i + 2) for c, i in enumerate(range(20))]
    found = metrics.summarise(rows)
    for order in (rows[::-1], rows[7:] + rows[:7]):
        other = metrics.summarise(order)
        for name in ("miou", "fb_iou", "area_ratio", "episodes"):  # sums of integers: equal to the bit
            assert other[name] == found[name]
        assert other["miou_episode_mean"] == pytest.approx(found["miou_episode_mean"], rel=1e-12)


def test_nothing_to_find_and_nothing_found_is_right():
    found = metrics.summarise([row(1, 0, 0, 0, 0, 0, 0)])
    assert (found["miou"], found["miou_episode_mean"], found["fb_iou"], found["area_ratio"]) == (1, 1, 1, 1)


def test_large_sums_do_not_overflow():
    rows = [row(1, 2**33, 2**34, 0, 1, 2**33, 2**34)] * 100
    assert metrics.summarise(rows)["miou"] == 0.5


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="expected at least one episode, got none; the fold has no class with enough"):
        metrics.summarise([])
