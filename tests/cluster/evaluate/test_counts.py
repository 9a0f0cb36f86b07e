"""Counts and figures that the saved masks bear out."""

import statistics
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from fss.scenes.scene import CLASSES
from tests.cluster.evaluate.results import LIST, MODEL, by_hand, figures, mask_of, prediction, rows


def test_counts_are_those_of_the_saved_masks(measured, photos):
    for row in rows(measured):
        yes, mask = prediction(measured, row), mask_of(photos, row["query"])
        thing, void = mask == row["class_id"], mask == 255
        assert yes.shape == thing.shape
        assert set(np.unique(yes)) <= {0, 1}
        predicted = (yes == 1) & ~void
        assert row["intersection"] == (predicted & thing).sum()
        assert row["union"] == (predicted | thing).sum()
        assert (row["predicted"], row["true"]) == (predicted.sum(), thing.sum())
        assert row["background_union"] == (~void).sum() - row["intersection"]
        assert row["background_intersection"] == (~void).sum() - row["union"]


def test_rows_are_in_order(measured, two_way):
    for manifest, names in ((measured, ["smoothed read-out", MODEL]), (two_way, [MODEL])):
        found = [(names.index(row["model"]), *(row[key] for key in LIST)) for row in rows(manifest)]
        assert found == sorted(set(found))


def test_counts_of_two_ways(two_way, photos):
    """Each way in a row of its own; what is neither way is background, which stands with the first."""
    found = defaultdict(list)
    for row in rows(two_way):
        found[row["episode"]].append(row)
    assert len(found) == 20
    assert {(row["way"], row["ways"]) for row in rows(two_way)} == {(0, 2), (1, 2)}
    seen = set()
    for number, ways in found.items():
        labels = np.asarray(Image.open(two_way.folder / f"predictions/{number:06d}.png"))  # one model, one list
        seen |= set(np.unique(labels))
        mask = mask_of(photos, ways[0]["query"])
        valid = mask != 255
        assert len({row["class_id"] for row in ways}) == 2
        assert len({ways[0]["query"], *(name for row in ways for name in row["supports"])}) == 3
        for row in ways:
            yes, real = (labels == row["way"] + 1) & valid, mask == row["class_id"]
            assert row["intersection"] == (yes & real).sum()
            assert row["union"] == (yes | real).sum()
            assert (row["predicted"], row["true"]) == (yes.sum(), real.sum())
        neither = valid & ~np.isin(mask, [row["class_id"] for row in ways])
        background = (labels == 0) & valid
        assert ways[0]["background_intersection"] == (background & neither).sum()
        assert ways[0]["background_union"] == (background | neither).sum()
        assert (ways[1]["background_intersection"], ways[1]["background_union"]) == (0, 0)
    assert seen == {0, 1, 2}
    assert figures(two_way)["models"][MODEL]["1"]["folds"]["1"]["episodes"] == 20


def test_metrics_from_the_rows(measured):
    """Means over classes, folds and lists, and their spread, by plain arithmetic."""
    every = rows(measured)
    for model, shots in ((m, k) for m in (MODEL, "smoothed read-out") for k in (1, 2)):
        lists = defaultdict(list)
        for row in every:
            if (row["model"], row["shots"]) == (model, shots):
                lists[row["seed"], row["fold"]].append(row)
        assert sorted(lists) == [(s, f) for s in (0, 1) for f in range(4)]
        told = figures(measured)["models"][model][str(shots)]
        for prefix, pick in (("", lambda f: f), ("model_", lambda f: f["model_resolution"])):
            one = {key: by_hand(found, prefix) for key, found in lists.items()}
            for name in one[0, 0]:
                of_seed = [np.mean([one[s, f][name] for f in range(4)]) for s in (0, 1)]
                assert pick(told["mean"])[name] == pytest.approx(np.mean(of_seed))
                assert pick(told["spread"])[name] == pytest.approx(statistics.stdev(of_seed))
                assert [pick(told["seeds"][str(s)])[name] for s in (0, 1)] == pytest.approx(of_seed)
                for f in range(4):
                    assert pick(told["folds"][str(f)])[name] == pytest.approx((one[0, f][name] + one[1, f][name]) / 2)
        assert {fold["episodes"] for fold in told["folds"].values()} == {12}
        for name in ("miou", "fb_iou"):
            low, high = told["interval"][name]
            assert low < told["mean"][name] < high


def test_classes_from_the_saved_masks(measured, photos):
    """A fold's classes without the rows: masks against masks, the two lists one after the other."""
    ious = defaultdict(list)
    for seed in (0, 1):
        sums = defaultdict(lambda: np.zeros(2))
        for row in (r for r in rows(measured) if (r["model"], r["shots"], r["seed"], r["fold"]) == (MODEL, 1, seed, 3)):
            yes, mask = prediction(measured, row) == 1, mask_of(photos, row["query"])
            thing, valid = mask == row["class_id"], mask != 255
            sums[CLASSES[row["class_id"] - 1]] += (yes & thing & valid).sum(), ((yes | thing) & valid).sum()
        for name, (part, whole) in sums.items():
            ious[name].append(part / whole)
    told = figures(measured)["models"][MODEL]["1"]["folds"]["3"]["classes"]
    assert {name: v["iou"] for name, v in told.items()} == pytest.approx({n: np.mean(v) for n, v in ious.items()})


def test_one_list_has_no_spread(two_way):
    told = figures(two_way)["models"][MODEL]["1"]
    assert not {"spread", "seeds"} & set(told)
    assert figures(two_way)["protocol"]["ways"] == [2]
