"""Episodes: the field's orders over tables made by hand, distinct images, and longer lists that extend shorter ones."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.evaluation.episodes import ORDERS, Episode, EpisodeRules, Way, draw, pool

#: In list order. Class 1 is in three images, class 2 in two, class 7 in one; `e` shows no class of the fold well.
SMALL = {
    "d": {1: 50, 2: 4},
    "a": {1: 10, 9: 80},
    "c": {1: 30, 2: 60, 7: 90},
    "e": {1: 9, 9: 80},
    "b": {2: 11},
}
FOLD = (7, 2, 1)

#: Every image shows two or three of five classes, some of them less than 10 pixels.
LARGE = {f"n{i:02d}": {c: 3 if (i + c) % 5 == 0 else 20 + i for c in {i % 5, i % 3, 4}} for i in reversed(range(60))}


def lists(images_of):
    """A table in which these images show 99 pixels of these classes."""
    found = collections.defaultdict(dict)
    for class_id, names in images_of.items():
        for name in names:
            found[name][class_id] = 99
    return dict(found)


def walk(order, count, *, seed=0, **rules):
    """(query, class) of `count` 1-shot episodes of `SMALL`."""
    drawn = draw(pool(SMALL, FOLD, EpisodeRules(order, min_area=10, **rules)), count=count, seed=seed)
    return [(e.query, e.ways[0].class_id) for e in drawn]


def test_the_pool_by_hand():
    found = pool(SMALL, FOLD, EpisodeRules(min_area=10))
    assert found.supports == {1: ("a", "c", "d"), 2: ("b", "c")}  # 7 has one image, a query needs another
    assert found.queries == (("d", (1,)), ("a", (1,)), ("c", (1, 2)), ("b", (2,)))
    tiny = pool(SMALL, FOLD, EpisodeRules(min_area=10, tiny=True))
    assert tiny.supports == found.supports
    assert tiny.queries == (("d", (1, 2)), ("a", (1,)), ("c", (1, 2)), ("b", (2,)))
    assert pool(SMALL, FOLD, EpisodeRules(min_area=10, shots=2)).supports == {1: ("a", "c", "d")}


def test_pairs_walk_in_list_order_and_wrap():
    pairs = [("d", 1), ("a", 1), ("c", 1), ("c", 2), ("b", 2)]
    assert walk("pairs", 12) == walk("pairs", 12, seed=5) == [*pairs, *pairs, *pairs[:2]]
    assert walk("pairs", 7, tiny=True) == [("d", 1), ("d", 2), *pairs[1:], ("d", 1)]


def test_images_walk_in_list_order_and_wrap():
    drawn = walk("images", 403)
    assert [query for query, _ in drawn] == [*"dacb" * 100, *"dac"]
    found = collections.Counter(drawn)
    assert set(found) == {("d", 1), ("a", 1), ("c", 1), ("c", 2), ("b", 2)}
    assert 30 < found["c", 2] < 70


def test_random_images_come_uniformly_whatever_they_show():
    found = collections.Counter(walk("random_images", 2000))
    assert set(found) == {("d", 1), ("a", 1), ("c", 1), ("c", 2), ("b", 2)}
    for pair, share in {("d", 1): 1 / 4, ("a", 1): 1 / 4, ("b", 2): 1 / 4, ("c", 1): 1 / 8, ("c", 2): 1 / 8}.items():
        assert found[pair] / 2000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("order", ["images", "random_images"])
def test_queries_may_show_little_of_the_class_but_supports_never(order):
    drawn = draw(pool(SMALL, FOLD, EpisodeRules(order, min_area=10, tiny=True)), count=400, seed=0)
    asked = collections.Counter((e.query, e.ways[0].class_id) for e in drawn)
    assert asked["d", 2] / (asked["d", 2] + asked["d", 1]) == pytest.approx(1 / 2, abs=0.15)
    assert ("e", 1) not in asked  # it shows enough of no class: such an image is not asked at all
    assert all(SMALL[name][way.class_id] >= 10 for e in drawn for way in e.ways for name in way.supports)


def test_classes_are_drawn_uniformly_and_so_are_queries_and_supports():
    table = lists({3: "abcdef", 1: "bdxyzw", 8: [f"n{i}" for i in range(50)]})
    drawn = draw(pool(table, (3, 1, 8), EpisodeRules(min_area=1)), count=3000, seed=0)
    classes = collections.Counter(e.ways[0].class_id for e in drawn)
    assert all(900 < classes[c] < 1100 for c in (1, 3, 8))
    of_three = [e for e in drawn if e.ways[0].class_id == 3]
    for names in ([e.query for e in of_three], [e.ways[0].supports[0] for e in of_three]):
        assert all(120 < n < 215 for n in collections.Counter(names).values())
        assert set(names) == set("abcdef")


@pytest.mark.parametrize(
    ("shots", "seed", "expected"),
    [
        (1, 0, [(1, "d", "w"), (8, "n2", "n4"), (8, "n3", "n4"), (3, "f", "c"), (1, "y", "b")]),
        (2, 7, [(3, "e", "cf"), (3, "b", "ac"), (1, "d", "bx"), (3, "f", "ac"), (1, "x", "bw")]),
    ],
)
def test_the_default_order_draws_what_earlier_versions_drew(shots, seed, expected):
    table = lists({3: "abcdef", 1: "bdxyzw", 8: ["n0", "n1", "n2", "n3", "n4"]})
    drawn = draw(pool(table, (1, 3, 8), EpisodeRules(shots=shots, min_area=99)), count=5, seed=seed)
    assert drawn == [
        Episode(i, query, (Way(class_id, (names,) if shots == 1 else tuple(names)),))
        for i, (class_id, query, names) in enumerate(expected)
    ]


@settings(max_examples=80)
@given(
    st.sampled_from(ORDERS), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 99), st.integers(0, 80)
)
def test_no_image_comes_twice_and_all_show_their_class(order, ways, shots, tiny, seed, count):
    rules = EpisodeRules(order, ways, shots, min_area=10, tiny=tiny)
    drawn = draw(pool(LARGE, range(5), rules), count=count, seed=seed)
    assert [e.index for e in drawn] == list(range(count))
    for episode in drawn:
        supports = [name for way in episode.ways for name in way.supports]
        assert len({episode.query, *supports}) == 1 + ways * shots
        assert len({way.class_id for way in episode.ways}) == ways
        assert [len(way.supports) for way in episode.ways] == [shots] * ways
        assert LARGE[episode.query][episode.ways[0].class_id] >= (1 if tiny else 10)
        assert all(LARGE[name][way.class_id] >= 10 for way in episode.ways for name in way.supports)


@pytest.mark.parametrize("ways", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_an_episode_is_a_function_of_the_seed_and_its_index(order, ways):
    source = pool(LARGE, range(5), EpisodeRules(order, ways, 2, 10))
    long = draw(source, count=150, seed=0)
    assert draw(source, count=70, seed=0) == long[:70]
    assert draw(source, count=0, seed=0) == []
    assert draw(pool(LARGE, (4, 2, 0, 1, 3), source.rules), count=150, seed=0) == long
    assert draw(source, count=150, seed=1) != long


def test_only_the_orders_that_walk_see_the_order_of_the_table():
    turned = dict(reversed(LARGE.items()))
    for order in ORDERS:
        first, second = (
            draw(pool(t, range(5), EpisodeRules(order, min_area=10)), count=40, seed=0) for t in (LARGE, turned)
        )
        assert (first == second) == (order == "classes")


def test_the_first_way_of_several_is_the_query_s_and_the_others_are_any_of_the_fold():
    drawn = draw(pool(LARGE, range(5), EpisodeRules("images", 3, 1, 10)), count=3000, seed=0)
    single = draw(pool(LARGE, range(5), EpisodeRules("images", 1, 1, 10)), count=3000, seed=0)
    assert [e.ways[0] for e in drawn] == [e.ways[0] for e in single]  # more ways change neither query nor first way
    others = collections.Counter(way.class_id for e in drawn if e.ways[0].class_id == 4 for way in e.ways[1:])
    assert set(others) == {0, 1, 2, 3}
    assert max(others.values()) < 1.15 * min(others.values())


def test_several_ways_need_as_many_more_images():
    """Two ways of one shot take three images; class 2, in three of them, is just enough."""
    table = lists({1: "abcd", 2: "abc", 3: "ab"})
    assert set(pool(table, (1, 2, 3), EpisodeRules(ways=2, min_area=1)).supports) == {1, 2}
    for episode in draw(pool(table, (1, 2, 3), EpisodeRules(ways=2, min_area=1)), count=50, seed=0):
        assert {way.class_id for way in episode.ways} == {1, 2}


@pytest.mark.parametrize(("ways", "shots", "needed", "found"), [(1, 3, 4, 0), (2, 1, 3, 1), (5, 1, 6, 0)])
def test_too_few_images_are_an_error_with_the_remedies(ways, shots, needed, found):
    with pytest.raises(
        ValueError,
        match=f"at least {ways} classes with {needed} images of 10 pixels or more, found {found}; "
        r"lower shots=, ways= or dataset\.min_area=, or give more images",
    ):
        pool(SMALL, FOLD, EpisodeRules("images", ways, shots, 10))


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="expected an order of classes, pairs, images, random_images, got 'shuffled'"):
        pool(SMALL, FOLD, EpisodeRules("shuffled"))
