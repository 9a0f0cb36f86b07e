"""Pairing regions into tasks: partners by brute force, never the same image, and the rules by hand."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.tasks.pairing import cross_image
from fss.tasks.pairing.cross_image import Keys
from fss.tasks.pairing.parts import pairs, partners, usage
from fss.tasks.pairing.parts.pairs import RegionTable
from fss.tasks.pairing.parts.rules import BALANCES


def table(keys: list[str], labels: list[int] | None = None, seed: int = 0, **columns: object) -> RegionTable:
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
    return RegionTable(**filled | {name: np.array(value) for name, value in columns.items()})


def random_table(images: int = 12, regions: int = 4, clusters: int = 3, seed: int = 0) -> RegionTable:
    keys = [f"image{i:02}" for i in range(images) for _ in range(regions)]
    return table(keys, np.random.default_rng(seed).integers(0, clusters, len(keys)).tolist(), seed)


def test_usable_follows_the_rules():
    rules = Keys(min_area=0.1, max_area=0.6, max_border=0.5, empty_lines=0.05)
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
    rules = Keys(tasks_per_image=6, shots=shots, nearest=nearest)
    drawn = list(cross_image.draw(regions, rules, seed=1))
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
    drawn = cross_image.draw(regions, Keys(tasks_per_image=400, nearest=0.5), seed=0)
    counts = collections.Counter(p.supports[0] for p in itertools.islice(drawn, 400))
    assert set(counts) == {1, 2}
    assert 160 < counts[1] < 240


def test_queries_are_drawn_uniformly_among_an_images_regions():
    regions = table(["a", "a", "b", "b"], [0, 1, 0, 1])
    queries = collections.Counter(p.query for p in cross_image.draw(regions, Keys(tasks_per_image=400), seed=0))
    assert sum(queries.values()) == 800
    assert min(queries.values()) > 160
    assert set(queries) == {0, 1, 2, 3}


def test_images_come_in_table_order_and_get_their_tasks():
    regions = table(["c", "c", "a", "b", "b"])
    drawn = [str(regions.key[p.query]) for p in cross_image.draw(regions, Keys(tasks_per_image=3), seed=0)]
    assert drawn == ["c"] * 3 + ["a"] * 3 + ["b"] * 3


def test_regions_without_partners_make_no_task():
    alone = table(["a", "a", "b"], [0, 1, 1])
    drawn = list(cross_image.draw(alone, Keys(tasks_per_image=50), seed=0))
    assert {p.query for p in drawn} == {1, 2}
    assert list(cross_image.draw(table(["a", "a"]), Keys(), seed=0)) == []
    assert list(cross_image.draw(table(["a", "b"]), Keys(shots=2), seed=0)) == []
    assert list(cross_image.draw(table([]), Keys(), seed=0)) == []


def test_a_pairing_depends_on_the_table_the_seed_and_its_number():
    regions = random_table()
    few, many = (list(cross_image.draw(regions, Keys(tasks_per_image=n), seed=0)) for n in (2, 5))
    first = [number * 5 + i for number in range(12) for i in range(2)]
    assert len(many) == 60
    assert few == [many[i] for i in first]
    assert many != list(cross_image.draw(regions, Keys(tasks_per_image=5), seed=1))


# Any small table, by brute force


@st.composite
def tables(draw: st.DrawFn) -> RegionTable:
    """Up to 7 images of up to 4 regions each, few clusters and layers; some regions are not usable."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=7))
    keys = [f"image{i}" for i, number in enumerate(counts) for _ in range(number)]
    few = st.lists(st.integers(0, 2), min_size=len(keys), max_size=len(keys))
    area = np.where(np.array(draw(few)) == 0, 0.01, 0.2)
    layers = [layer for number in counts for layer in draw(st.permutations(range(number)))]
    return table(keys, draw(few), draw(st.integers(0, 99)), area=area, layer=layers)


RULES = st.builds(
    Keys,
    tasks_per_image=st.integers(1, 4),
    shots=st.integers(1, 3),
    distractors=st.integers(0, 2),
    nearest=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
    similarity=st.sampled_from(["exact", "sampled"]),
    sample=st.integers(1, 4),
    balance=st.sampled_from(BALANCES),
    same_layer=st.booleans(),
    layers=st.sampled_from([None, [0, 1], [2]]),
    keep_clusters=st.sampled_from([0.3, 1.0]),
)


def candidates(found: RegionTable, rules: Keys, query: int) -> list[int]:
    """Rows that may support `query`, the most similar first."""
    fine = pairs.usable(found, rules)
    rows = [
        row
        for row in range(len(found))
        if fine[row]
        and found.label[row] == found.label[query]
        and (found.layer[row] == found.layer[query] or not rules.same_layer)
        and found.key[row] != found.key[query]
    ]
    return sorted(rows, key=lambda row: -float(found.descriptor[row] @ found.descriptor[query]))


def nearest(found: RegionTable, rules: Keys, query: int) -> list[int]:
    """The nearest share of them, or as many as show enough images."""
    others = candidates(found, rules, query)
    number = int(np.ceil(rules.nearest * len(others)))
    while len({found.key[row] for row in others[:number]}) < rules.shots:
        number += 1
    return others[:number]


def images_without(found: RegionTable, rules: Keys, query: int) -> set[str]:
    fine = pairs.usable(found, rules)
    showing = {key for key, label in zip(found.key, found.label, strict=True) if label == found.label[query]}
    return {str(key) for key in found.key[fine]} - showing


@settings(max_examples=25)
@given(tables(), RULES, st.integers(0, 9))
def test_tasks_of_any_table(found, rules, seed):
    drawn = cross_image.draw(found, rules, seed=seed)
    fine = pairs.usable(found, rules)
    for pairing in drawn:
        query = pairing.query
        assert fine[query]
        keys = [str(found.key[row]) for row in (query, *pairing.supports, *pairing.distractors)]
        assert len(set(keys)) == len(keys) == 1 + rules.shots + rules.distractors
        assert set(pairing.supports) <= set(candidates(found, rules, query))
        if rules.similarity == "exact":
            assert set(pairing.supports) <= set(nearest(found, rules, query))
        assert {str(found.key[row]) for row in pairing.distractors} <= images_without(found, rules, query)
    able = [
        row
        for row in np.flatnonzero(fine)
        if len({found.key[other] for other in candidates(found, rules, row)}) >= rules.shots
        and len(images_without(found, rules, row)) >= rules.distractors
    ]
    expected = rules.tasks_per_image * len({found.key[row] for row in able})
    assert len(drawn) == expected == pairs.Eligible(found, rules).count()
    assert {p.query for p in drawn} <= set(able)
    assert drawn == cross_image.draw(found, rules, seed=seed)


@settings(max_examples=60)
@given(tables(), RULES, st.integers(0, 9))
def test_held_out_queries_and_the_others_share_out_the_tasks(found, rules, seed):
    held = np.isin(found.key, ["image0", "image3"])
    parts = [cross_image.draw(found, rules, seed=seed, queries=rows) for rows in (held, ~held)]
    assert all(held[p.query] for p in parts[0])
    assert not any(held[p.query] for p in parts[1])
    group = pairs.Eligible(found, rules)
    assert [len(part) for part in parts] == [group.count(held), group.count(~held)]
    assert len(parts[0]) + len(parts[1]) == group.count()


@settings(max_examples=25)
@given(tables(), RULES)
def test_usage_adds_up(found, rules):
    drawn = cross_image.draw(found, rules, seed=0)
    uses = usage.used(found, drawn)
    by = {kind: [use for use in uses if use.kind == kind] for kind in ("image", "cluster", "pair")}
    assert len({(use.kind, use.name) for use in uses}) == len(uses)
    for use in by["image"]:
        assert use.tasks == sum(found.key[p.query] == use.name for p in drawn)
        assert use.supports == sum(found.key[row] == use.name for p in drawn for row in p.supports)
    assert sum(use.tasks for use in by["image"]) == sum(use.tasks for use in by["cluster"]) == len(drawn)
    assert sum(use.tasks for use in by["pair"]) == rules.shots * len(drawn)
    every = len(drawn) * (1 + rules.shots + rules.distractors)
    assert usage.sums(uses) == {"used_images": len(by["image"]), "image_uses": every, "used_pairs": len(by["pair"])}
    halves = [usage.Peaks.of(usage.used(found, part)) for part in (drawn[::2], drawn[1::2])]
    tasks = collections.Counter(int(found.label[p.query]) for p in drawn)
    merged = usage.Peaks.merged(halves)
    assert merged["used_clusters"] == len(tasks)
    assert merged["cluster_tasks_max"] == max(tasks.values(), default=0)
    assert merged["cluster_tasks_min"] == min(tasks.values(), default=0)
    whole = usage.Peaks.merged([usage.Peaks.of(uses)])
    assert whole["image_uses_max"] == max((use.uses for use in by["image"]), default=0)


@settings(max_examples=25)
@given(tables(), RULES, st.integers(1, 2))
def test_a_pair_comes_no_more_often_than_allowed(found, rules, repeats):
    rules = dataclasses.replace(rules, tasks_per_image=6, repeats=repeats)
    drawn = cross_image.draw(found, rules, seed=0)
    counts = collections.Counter((p.query, row) for p in drawn for row in p.supports)
    assert max(counts.values(), default=0) <= repeats
    free = dataclasses.replace(rules, repeats=None)
    assert len(drawn) <= len(cross_image.draw(found, free, seed=0))


def test_repeats_by_hand():
    """Two images of one region each: of the eight tasks asked for, one each way is left."""
    both = table(["a", "b"])
    drawn = cross_image.draw(both, Keys(tasks_per_image=4, repeats=1), seed=0)
    assert [(p.query, p.supports) for p in drawn] == [(0, (1,)), (1, (0,))]


# Balance


@settings(max_examples=100)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(0, 99))
def test_equal_shares(caps, total):
    shares = pairs.equal_shares(total, np.array(caps)).tolist()
    assert sum(shares) == min(total, sum(caps))
    assert all(share <= cap for share, cap in zip(shares, caps, strict=True))
    below = [share for share, cap in zip(shares, caps, strict=True) if share < cap]
    assert all(share >= max(shares) - 1 for share in below)


def test_clusters_get_equal_shares_and_their_regions_take_turns():
    """Cluster 0 in 10 images, 1 in four, 2 in two; 30 tasks: of the latter at most 12 and 6, of the first the rest."""
    keys, labels = zip(*[(f"i{i}", c) for i in range(10) for c in range(3) if i < (10, 4, 2)[c]], strict=True)
    regions = table(list(keys), list(labels))
    drawn = cross_image.draw(regions, Keys(tasks_per_image=3, balance="clusters"), seed=0)
    counts = collections.Counter(int(regions.label[p.query]) for p in drawn)
    assert counts == {0: 12, 1: 12, 2: 6}
    for label, number in counts.items():
        uses = collections.Counter(p.query for p in drawn if regions.label[p.query] == label)
        assert max(uses.values()) - min(uses.values()) <= (number % len(uses) > 0)


# Which regions


def test_clusters_that_hold_the_border_go():
    regions = table(list("abcdef"), [0, 0, 1, 1, 2, 2], border=[0.0, 0.4, 0.1, 0.1, 0.3, 0.3])
    kept = [set(regions.label[pairs.usable(regions, Keys(keep_clusters=share))]) for share in (0.3, 0.5, 0.7, 1.0)]
    assert kept == [{1}, {0, 1}, {0, 1, 2}, {0, 1, 2}]


def test_only_the_layers_asked_for_are_used():
    regions = table(list("abcd"), layer=[0, 1, 2, 1])
    assert pairs.usable(regions, Keys(layers=[1, 2])).tolist() == [False, True, True, True]
    drawn = cross_image.draw(regions, Keys(same_layer=True), seed=0)
    assert {(p.query, *p.supports) for p in drawn} == {(1, 3), (3, 1)}


def test_a_stated_share_of_queries_lies_above_the_first_layer():
    """Where an image has both; an image that has one kind alone asks for that."""
    keys = [name for name in "abcdefgh" for _ in range(4)]
    layers = [0, 1, 1, 2] * 6 + [0] * 4 + [1] * 4
    regions = table(keys, layer=layers)
    rules = Keys(tasks_per_image=200, inside=0.25)
    drawn = collections.Counter(
        (str(regions.key[p.query]), bool(regions.layer[p.query])) for p in cross_image.draw(regions, rules, seed=2)
    )
    above = [drawn[name, True] / 200 for name in "abcdef"]
    assert np.mean(above) == pytest.approx(0.25, abs=0.03)
    assert (drawn["g", False], drawn["h", True]) == (200, 200)
    assert cross_image.count(regions, rules, np.ones(32, bool)) == sum(drawn.values())


def test_a_hidden_region_of_the_cluster_makes_no_distractor():
    """Image c shows the cluster in a region that is too small to be used, so only d can be a distractor."""
    regions = table(list("abccd"), [0, 0, 0, 1, 1], area=[0.2, 0.2, 0.001, 0.2, 0.2])
    drawn = cross_image.draw(regions, Keys(distractors=1), seed=0)
    found = {p.distractors for p in drawn if regions.label[p.query] == 0}
    assert found == {(4,)}


# The estimated limit


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_sampled_and_exact_agree_within_the_stated_error(share):
    """Rank of the estimated limit among 3000 candidates: z-scores of a standard normal, and so do the supports."""
    members, sample = 3000, 300
    regions = table([f"i{i}" for i in range(members)], seed=3)
    rules = Keys(similarity="sampled", sample=sample, nearest=share, tasks_per_image=1)
    error = np.sqrt(share * (1 - share) / sample) * np.sqrt(1 - sample / members)
    queries = np.arange(0, members, 60)
    similarity = regions.descriptor @ regions.descriptor[queries].T
    scores = []
    for seed in range(6):  # queries of one cluster share a sample: their errors are not independent
        search = partners.search(regions.descriptor, np.arange(members), np.arange(members), rules, seed=seed)
        limits = np.array(list(search.limits(queries)))
        scores.append(((similarity >= limits).mean(axis=0) - share) / error)
    assert 0.7 < np.sqrt(np.mean(np.square(scores))) < 1.3
    assert np.abs(scores).max() < 5
    drawn = cross_image.draw(regions, rules, seed=0)
    assert len(drawn) == members
    beyond = []
    for pairing in drawn[:300]:
        similarity = regions.descriptor @ regions.descriptor[pairing.query]
        beyond.append((similarity > similarity[pairing.supports[0]]).mean())
    assert max(beyond) < share + 5 * error
    assert abs(np.mean(beyond) - share / 2) < 0.03


def test_blocks_of_similarities_change_nothing(monkeypatch):
    regions = random_table(images=20)
    whole = cross_image.draw(regions, Keys(shots=2), seed=0)
    monkeypatch.setattr(partners, "_BLOCK", 40)
    assert cross_image.draw(regions, Keys(shots=2), seed=0) == whole
