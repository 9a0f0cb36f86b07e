"""What the benchmarks of learning say of a head's episodes: figures by hand, and differences that are paired."""

import numpy as np
import pytest

from benchmarks.learning import Marks
from fss.evaluation.bootstrap import Columns

#: fold, seed, episode, class, intersection, union, the background's intersection and union
EPISODES = [
    (0, 0, 0, 1, 10, 40, 50, 80),
    (0, 0, 1, 1, 30, 40, 70, 80),
    (0, 0, 2, 2, 90, 100, 0, 10),
    (1, 0, 0, 3, 20, 100, 0, 80),
]


def marks(gained=0):
    columns = np.array(EPISODES).T
    columns[4] += gained
    return Marks(Columns(*columns), predicted=30, true=60)


def test_figures_sum_the_episodes_of_a_class_and_average_over_classes_then_folds():
    figures = marks().figures()
    assert figures["miou"] == pytest.approx(100 * ((40 / 80 + 90 / 100) / 2 + 20 / 100) / 2)
    assert figures["fb_iou"] == pytest.approx(100 * ((130 / 180 + 120 / 170) / 2 + (20 / 100 + 0) / 2) / 2)
    assert figures["area_ratio"] == 0.5


def test_a_difference_is_of_the_same_episodes():
    assert vars(marks().over(marks())) == {"value": 0, "low": 0, "high": 0, "below": 0}
    gap = marks(gained=5).over(marks())
    assert 0 < gap.low <= gap.value <= gap.high
    assert gap.value == pytest.approx(((10 / 80 + 5 / 100) / 2 + 5 / 100) / 2)
