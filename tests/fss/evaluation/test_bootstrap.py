"""Bootstrap intervals: against plain loops with the same weights, and against the known truth of a simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.evaluation import bootstrap, metrics
from fss.evaluation.bootstrap import Columns, difference, interval, replicate


def columns(rows):
    """Columns of rows (fold, seed, episode, class_id, intersection, union, background_intersection, ..._union)."""
    return Columns(*np.array(rows, dtype=np.int64).reshape(-1, 8).T)


def random_columns(generator, lists=((0, 0), (1, 0)), episodes=12, ways=1, classes=3):
    """Lists by (fold, seed); fold f shows `classes` classes from 10 f on; background counts stand in way 0."""
    rows = []
    for fold, seed in lists:
        for episode in range(episodes):
            for way, class_id in enumerate(generator.choice(classes, size=ways, replace=False)):
                union, background = generator.integers(1, 500, size=2)
                inside = generator.integers(0, union + 1)
                back = (generator.integers(0, background + 1), background) if way == 0 else (0, 0)
                rows.append((fold, seed, episode, 10 * fold + class_id, inside, union, *back))
    return columns(rows)


def loop(part, weights):
    """mIoU, FB-IoU and IoU by class of one list, its episodes counted `weights[episode]` times: no array tricks."""
    both, either, back, background = {}, {}, 0, 0
    for i in range(len(part.episode)):
        for _ in range(weights[part.episode[i]]):
            c = int(part.class_id[i])
            both[c] = both.get(c, 0) + int(part.intersection[i])
            either[c] = either.get(c, 0) + int(part.union[i])
            back += int(part.background_intersection[i])
            background += int(part.background_union[i])
    ious = {c: both[c] / either[c] for c in both}
    miou = sum(ious.values()) / len(ious)
    return miou, (sum(both.values()) / sum(either.values()) + back / background) / 2, ious


@pytest.mark.parametrize("ways", [1, 2])
def test_replicates_are_what_a_plain_loop_makes_of_the_same_weights(monkeypatch, ways):
    data = random_columns(np.random.default_rng(1), ((0, 0), (1, 0), (0, 1), (1, 1)), ways=ways)
    drawn = []
    original = bootstrap._weights

    def recorded(*arguments):
        drawn.append([])
        for block in original(*arguments):
            drawn[-1].extend(block)
            yield block

    monkeypatch.setattr(bootstrap, "_weights", recorded)
    found = replicate(data, samples=100, seed=3)
    assert len(drawn) == 4
    for weights, ((seed, fold), stratum) in zip(drawn, found.strata.items(), strict=True):
        assert len(weights) == 101
        assert (weights[0] == 1).all()
        assert all(row.sum() == 12 and row.min() >= 0 for row in weights)
        assert np.mean([row.var() for row in weights[1:]]) == pytest.approx(11 / 12, abs=0.2)  # multinomial
        part = data.where((data.seed == seed) & (data.fold == fold))
        for number, row in enumerate(weights):
            miou, fb_iou, ious = loop(part, row)
            assert stratum.miou[number] == pytest.approx(miou, abs=1e-12)
            assert stratum.fb_iou[number] == pytest.approx(fb_iou, abs=1e-12)
            for c, value in zip(stratum.classes.tolist(), stratum.iou[number], strict=True):
                assert value == pytest.approx(ious.get(c, np.nan), abs=1e-12, nan_ok=True)
    by_list = np.array([[stratum.miou for stratum in found.strata.values()]])
    np.testing.assert_allclose(found.values("miou"), by_list.mean(axis=1)[0], atol=1e-12)


def test_by_hand():
    """Two seeds of one fold: (1/2 + 3/4) / 2 and 1/4; background 9/10 and 1/2."""
    data = columns([(0, 0, 0, 1, 2, 4, 9, 10), (0, 0, 1, 2, 3, 4, 0, 0), (0, 1, 0, 1, 1, 4, 1, 2)])
    found = replicate(data, samples=100)
    assert interval(found).value == (5 / 8 + 1 / 4) / 2
    assert interval(found, "fb_iou").value == pytest.approx(((5 / 8 + 9 / 10) / 2 + (1 / 4 + 1 / 2) / 2) / 2)
    assert interval(found, 1).value == (1 / 2 + 1 / 4) / 2
    assert found.by_seed() == {0: 5 / 8, 1: 1 / 4}
    assert found.by_fold() == {0: (5 / 8 + 1 / 4) / 2}
    assert found.classes == [1, 2]
    # seed 0 draws one of {both, only the first, only the second} episodes; seed 1 has but one
    assert set(np.round(found.values()[1:], 9)) == {(5 / 8 + 1 / 4) / 2, (1 / 2 + 1 / 4) / 2, (3 / 4 + 1 / 4) / 2}
    assert np.isnan(found.values(2)[1:]).any(), "class 2 is not in every replicate"
    assert interval(found, 2) == bootstrap.Interval(3 / 4, 3 / 4, 3 / 4)
    with pytest.raises(ValueError, match=r"expected one of the classes \[1, 2\], got 3"):
        found.values(3)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 12))
def test_with_weights_of_one_it_is_the_metric_itself(seed, episodes, classes):
    data = random_columns(np.random.default_rng(seed), ((0, 0),), episodes, classes=classes)
    ones = np.ones_like(data.fold)
    figures = metrics.summarise({**vars(data), "way": 0 * ones, "predicted": ones, "true": ones})
    found = replicate(data, samples=100)
    assert interval(found).value == pytest.approx(figures["miou"], rel=1e-14)  # a mean, which the metric takes exactly
    assert interval(found, "fb_iou").value == figures["fb_iou"]
    assert {c: interval(found, c).value for c in found.classes} == {
        c: value["iou"] for c, value in figures["classes"].items()
    }


def test_deterministic_whatever_the_order_of_rows_and_the_size_of_blocks(monkeypatch):
    data = random_columns(np.random.default_rng(2), ways=2)
    found = replicate(data, samples=150, seed=1)
    shuffled = data.where(np.random.default_rng(0).permutation(len(data.fold)))
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * len(data.fold))
    again = replicate(shuffled, samples=150, seed=1)
    for figure in ("miou", "fb_iou", 10):
        np.testing.assert_array_equal(found.values(figure), again.values(figure))
    assert (found.values()[1:] != replicate(data, samples=150, seed=2).values()[1:]).any()


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Episodes of union 100 whose expected IoU is 0.5 and 0.3 in two classes: the truth is 0.4."""
    generator, hits, widths = np.random.default_rng(5), 0, []
    for _ in range(120):
        class_id = generator.integers(0, 2, 100)
        inside = np.round(100 * generator.beta(2 - 0.8 * class_id, 2 + 0.8 * class_id)).astype(np.int64)
        zeros, every = np.zeros(100, np.int64), np.full(100, 100)
        found = interval(replicate(Columns(zeros, zeros, np.arange(100), class_id, inside, every, every, every), 200))
        assert found.low < found.value < found.high
        hits += found.low <= 0.4 <= found.high
        widths.append(found.high - found.low)
    assert 0.88 <= hits / 120 <= 0.99
    # standard error of the mean of two classes with 50 episodes each
    error = np.sqrt(sum(a * b / (4**2 * 5) / 50 for a, b in ((2, 2), (1.2, 2.8)))) / 2
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_model_differs_from_itself_by_exactly_nothing():
    found = replicate(random_columns(np.random.default_rng(3), ways=2))
    for figure in ("miou", "fb_iou", 0, 11):
        gap = difference(found, found, figure)
        assert (gap.value, gap.low, gap.high, gap.below, gap.clear) == (0, 0, 0, 0, False)


def test_pairing_removes_what_the_episodes_have_in_common():
    """One model is better by 2 pixels of 100 in every episode: certain, though the two intervals overlap."""
    generator = np.random.default_rng(4)
    inside, n = generator.integers(0, 98, 80), 80
    zeros, every = np.zeros(n, np.int64), np.full(n, 100)
    rest = (zeros, zeros, np.arange(n), generator.integers(0, 3, n))
    base = replicate(Columns(*rest, inside, every, every, every))
    better = replicate(Columns(*rest, inside + 2, every, every, every))
    gap = difference(better, base)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.02, 0.02, 0.02))
    assert gap.clear
    assert gap.below == 0
    assert difference(base, better).below == 1
    assert interval(base).high > interval(better).low


def test_what_cannot_be_used_is_refused():
    data = random_columns(np.random.default_rng(6))
    found = replicate(data, 100)
    with pytest.raises(ValueError, match=r"expected two models on the same episodes .* got 24 and 23 entries"):
        difference(found, replicate(data.where(np.arange(24) > 0), 100))
    with pytest.raises(ValueError, match=r"expected two models on the same episodes .* 100 and 200 samples"):
        difference(found, replicate(data, 200))
    with pytest.raises(ValueError, match="at least 100 bootstrap samples, got 10; set samples=1000"):
        replicate(data, 10)
    with pytest.raises(ValueError, match="expected at least one episode, got none"):
        data.where(data.fold > 5)
    with pytest.raises(ValueError, match=r"union: expected 24 integers like the column fold, got shape .* float64"):
        Columns.of({**vars(data), "union": data.union / 2})
