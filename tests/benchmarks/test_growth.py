"""The table of growth: its exponent by hand, and every stage in it has a cost."""

import pytest

from benchmarks import growth


def test_the_exponent_is_that_of_the_last_step():
    assert growth.exponent([9.0, 2.0, 8.0], [1, 10, 40]) == pytest.approx(1.0)
    assert growth.exponent([1.0, 8.0], [10, 20]) == pytest.approx(3.0)


@pytest.mark.slow
def test_every_stage_is_in_the_table():
    figures = growth.once(20, ["backbone=small", "backbone.size=96", "corpus.scene_size=96", "episodes=4"])
    assert set(figures) == set(growth.STAGES)
    assert all(cost["seconds"] > 0 for cost in figures.values())
    (_, _, *rows) = growth.table([figures, figures], [20, 40])
    assert all(" | 0.00 | " in row for row in rows)  # of equal costs
    assert growth.refined(figures) > 1
