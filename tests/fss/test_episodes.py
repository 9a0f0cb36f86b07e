"""Episodes: distinct supports, never the query, and longer lists extend shorter ones."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss import episodes

IMAGES_OF = {
    3: ["a", "b", "c", "d", "e", "f"],
    1: ["b", "d", "x", "y", "z", "w"],
    8: [f"n{i}" for i in range(50)],
}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_supports_are_distinct_images_of_the_class_and_never_the_query(shots, seed):
    for number, episode in enumerate(episodes.draw(IMAGES_OF, shots=shots, count=20, seed=seed)):
        assert episode.index == number
        assert len(episode.supports) == shots
        assert len({episode.query, *episode.supports}) == shots + 1
        assert {episode.query, *episode.supports} <= set(IMAGES_OF[episode.class_id])


def test_a_longer_list_begins_with_the_shorter_one():
    long = episodes.draw(IMAGES_OF, shots=2, count=100, seed=0)
    assert episodes.draw(IMAGES_OF, shots=2, count=30, seed=0) == long[:30]
    assert episodes.draw(IMAGES_OF, shots=2, count=0, seed=0) == []


def test_the_order_of_the_table_does_not_matter_but_the_seed_does():
    shuffled = {c: IMAGES_OF[c][::-1] for c in sorted(IMAGES_OF, reverse=True)}
    first = episodes.draw(IMAGES_OF, shots=1, count=50, seed=0)
    assert episodes.draw(shuffled, shots=1, count=50, seed=0) == first
    assert episodes.draw(IMAGES_OF, shots=1, count=50, seed=1) != first


def test_classes_are_drawn_uniformly_and_so_are_queries_and_supports():
    drawn = episodes.draw(IMAGES_OF, shots=1, count=3000, seed=0)
    classes = collections.Counter(e.class_id for e in drawn)
    assert all(900 < classes[c] < 1100 for c in IMAGES_OF)
    for names in ([e.query for e in drawn if e.class_id == 3], [e.supports[0] for e in drawn if e.class_id == 3]):
        assert all(120 < n < 215 for n in collections.Counter(names).values())
        assert len(set(names)) == 6


def test_a_class_with_too_few_images_is_named_with_the_remedies():
    assert episodes.draw({1: ["a", "b"]}, shots=1, count=3, seed=0)
    with pytest.raises(
        ValueError,
        match=r"class 1 has 2 images, 2-shot episodes need at least 3; lower shots=, lower dataset\.min_area=",
    ):
        episodes.draw({1: ["a", "b"]}, shots=2, count=3, seed=0)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match=r"got none; check dataset\.root and dataset\.list"):
        episodes.draw({}, shots=1, count=3, seed=0)
