"""The order of mixed episodes, by brute force: proportions at any time, each part in its own order, any place."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fss.tasks.mixture import Mixture
from fss.tasks.task import Schedule

PARTS = (Schedule((3, 2), 1), Schedule((4,), 2), Schedule((1, 1, 5), 3))


def mixture(*weights):
    return Mixture(PARTS[: len(weights)], weights)


weights = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@given(weights)
def test_every_part_has_its_share_at_any_time(chosen):
    mixed, seen, total = mixture(*chosen), Counter(), sum(chosen)
    for episode in range(2 * total):
        part, number = mixed.of(episode)
        assert number == seen[part]  # each of a part's episodes once, in order
        seen[part] += 1
        for one, weight in enumerate(chosen):
            behind = Fraction(weight * (episode + 1), total) - seen[one]
            assert abs(behind) < (1 if len(chosen) < 3 else 2)
    assert [seen[part] for part in range(len(chosen))] == [2 * weight for weight in chosen]


@given(weights, st.integers(0, 10**9))
def test_an_episode_is_the_next_one_of_its_part_with_its_shards_after_those_before(chosen, episode):
    mixed = mixture(*chosen)
    part, number = mixed.of(episode)
    epoch, shard, position = PARTS[part].locate(number)
    before = sum(len(schedule.counts) for schedule in PARTS[:part])
    assert mixed.locate(episode) == (epoch, before + shard, position)


@given(weights)
def test_no_task_comes_twice_within_the_size_and_one_right_after(chosen):
    mixed = mixture(*chosen)
    epochs = [mixed.locate(episode)[0] for episode in range(mixed.size + 1)]
    assert set(epochs[:-1]) == {0}
    assert epochs[-1] == 1
    assert len({mixed.locate(episode) for episode in range(mixed.size)}) == mixed.size


def test_the_turns_by_hand():
    """Two to one; seven thousandths to three are as seven to three."""
    assert [mixture(2, 1).of(i) for i in range(6)] == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
    assert [mixture(700, 300).of(i) for i in range(20)] == [mixture(7, 3).of(i) for i in range(20)]


@pytest.mark.parametrize("wrong", [(), (1,), (1, 0), (1, 1, 1)])
def test_weights_must_fit(wrong):
    with pytest.raises(ValueError, match="expected a weight from 1 for each of 2 parts"):
        Mixture(PARTS[:2], wrong)
