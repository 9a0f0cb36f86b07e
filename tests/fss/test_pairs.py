"""Pairing regions into tasks: partners by brute force, never the same image, and the rules by hand."""

import collections
import itertools

import numpy as np
import pytest

from fss import pairs
from fss.pairs import Rules, Table


def table(keys: list[str], labels: list[int] | None = None, seed: int = 0, **columns: object) -> Table:
    number = len(keys)
    rows = np.random.default_rng(seed).standard_normal((number, 6)).astype(np.float32)
    filled = {
        "key": np.array(keys),
        "layer": np.zeros(number, np.int64),
        "label": np.array(labels or [0] * number),
        "area": np.full(number, 0.2),
        "border": np.full(number, 0.1),
        "empty_rows": np.full(number, 0.5),
        "empty_columns": np.full(number, 0.5),
        "descriptor": rows / np.linalg.norm(rows, axis=1, keepdims=True),
    }
    return Table(**filled | {name: np.array(value) for name, value in columns.items()})


def random_table(images: int = 12, regions: int = 4, clusters: int = 3, seed: int = 0) -> Table:
    keys = [f"image{i:02}" for i in range(images) for _ in range(regions)]
    return table(keys, np.random.default_rng(seed).integers(0, clusters, len(keys)).tolist(), seed)


def test_take_keeps_the_columns_together():
    whole = random_table()
    for rows in (np.array([5, 2]), np.arange(len(whole)) % 2 == 0):
        part = whole.take(rows)
        assert len(part) == len(whole.key[rows])
        assert np.array_equal(part.descriptor, whole.descriptor[rows])
        assert np.array_equal(part.label, whole.label[rows])


def test_usable_follows_the_rules():
    rules = Rules(min_area=0.1, max_area=0.6, max_border=0.5, empty_lines=0.05)
    found = table(
        list("abcdefgh"),
        area=[0.1, 0.6, 0.09, 0.61, 0.2, 0.2, 0.2, 0.2],
        border=[0.5, 0.1, 0.1, 0.1, 0.51, 0.1, 0.1, 0.1],
        empty_rows=[0.5, 0.05, 0.5, 0.5, 0.5, 0.04, 0.5, 0.0],
        empty_columns=[0.05, 0.5, 0.5, 0.5, 0.5, 0.5, 0.04, 0.0],
    )
    assert pairs.usable(found, rules).tolist() == [True, True, False, False, False, False, False, False]


@pytest.mark.parametrize(("shots", "nearest"), [(1, 0.5), (1, 0.01), (3, 0.4), (2, 1.0)])
def test_supports_are_of_the_query_cluster_in_other_images_and_among_the_nearest(shots, nearest):
    regions = random_table()
    rules = Rules(tasks_per_image=6, shots=shots, nearest=nearest)
    drawn = list(pairs.draw(regions, rules, seed=1))
    assert len(drawn) > 20
    for pairing in drawn:
        images = [regions.key[row] for row in (pairing.query, *pairing.supports)]
        assert len(set(images)) == shots + 1
        query = pairing.query
        others = [
            row
            for row in range(len(regions))
            if regions.label[row] == regions.label[query] and regions.key[row] != regions.key[query]
        ]
        others.sort(key=lambda row: -float(regions.descriptor[row] @ regions.descriptor[query]))
        near = others[: max(int(np.ceil(nearest * len(others))), shots)]
        assert set(pairing.supports) <= set(near)


def test_every_near_partner_is_drawn_alike():
    """Four partners by cosine 0.9, 0.8, 0.2, 0.1: the nearer two, half of the time each."""
    cosines = np.array([1, 0.9, 0.8, 0.2, 0.1])
    descriptors = np.stack([cosines, np.sqrt(1 - cosines**2)], 1).astype(np.float32)
    regions = table(list("qabcd"), descriptor=descriptors)
    drawn = pairs.draw(regions, Rules(tasks_per_image=400, nearest=0.5), seed=0)
    counts = collections.Counter(p.supports[0] for p in itertools.islice(drawn, 400))
    assert set(counts) == {1, 2}
    assert 160 < counts[1] < 240


def test_queries_are_drawn_uniformly_among_an_images_regions():
    regions = table(["a", "a", "b", "b"], [0, 1, 0, 1])
    queries = collections.Counter(p.query for p in pairs.draw(regions, Rules(tasks_per_image=400), seed=0))
    assert sum(queries.values()) == 800
    assert min(queries.values()) > 160
    assert set(queries) == {0, 1, 2, 3}


def test_images_come_in_table_order_and_get_their_tasks():
    regions = table(["c", "c", "a", "b", "b"])
    drawn = [str(regions.key[p.query]) for p in pairs.draw(regions, Rules(tasks_per_image=3), seed=0)]
    assert drawn == ["c"] * 3 + ["a"] * 3 + ["b"] * 3


def test_regions_without_partners_make_no_task():
    alone = table(["a", "a", "b"], [0, 1, 1])
    drawn = list(pairs.draw(alone, Rules(tasks_per_image=50), seed=0))
    assert {p.query for p in drawn} == {1, 2}
    assert list(pairs.draw(table(["a", "a"]), Rules(), seed=0)) == []
    assert list(pairs.draw(table(["a", "b"]), Rules(shots=2), seed=0)) == []
    assert list(pairs.draw(table([]), Rules(), seed=0)) == []


def test_a_pairing_depends_on_the_table_the_seed_and_its_number():
    regions = random_table()
    few, many = (list(pairs.draw(regions, Rules(tasks_per_image=n), seed=0)) for n in (2, 5))
    first = [number * 5 + i for number in range(12) for i in range(2)]
    assert len(many) == 60
    assert few == [many[i] for i in first]
    assert many != list(pairs.draw(regions, Rules(tasks_per_image=5), seed=1))
