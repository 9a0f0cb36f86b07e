"""From rows to figures, by hand; and which candidate labels would choose."""

import statistics
from types import SimpleNamespace

import pyarrow as pa
import pytest

from cluster.evaluate import figures
from cluster.evaluate.measure import SCHEMA
from fss.evaluation.metrics import FIELDS

DATASET = SimpleNamespace(class_names=("ant", "bee", "cat", "dog"))


def row(model, iou, *, fold=0, shots=1, seed=0, episode=0, way=0, class_id=1, union=100, **counts):
    """A row with an IoU in percent; the background is a hundred pixels more, all of them right."""
    part = iou * union // 100
    own = dict(zip(FIELDS, (part, union, 100, 200 - part, part, union), strict=True)) | counts
    coarse = {f"model_{name}": 2 * number for name, number in own.items()}
    place = {"fold": fold, "shots": shots, "ways": 1, "seed": seed, "episode": episode, "way": way}
    return {"model": model, **place, "class_id": class_id, "query": "q", "supports": ["s"], **own, **coarse}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


#: mIoU of seed 0: 30 and 50 on the folds; of seed 1: 50 and 60 (90 on the two classes' 60, 30 and 60).
SEEDS = (
    row("m", 20, episode=0),
    row("m", 40, episode=1),
    row("m", 50, fold=1, class_id=3),
    row("m", 50, seed=1),
    row("m", 30, fold=1, seed=1, class_id=3, episode=0),
    row("m", 90, fold=1, seed=1, class_id=4, episode=1),
)


def test_folds_are_averaged_over_seeds_and_seeds_over_folds():
    found = figures.summary(table(*SEEDS), DATASET)["m"]["1"]
    assert found["folds"]["0"]["miou"] == pytest.approx((0.3 + 0.5) / 2)
    assert found["folds"]["1"]["miou"] == pytest.approx((0.5 + 0.6) / 2)
    assert {s: v["miou"] for s, v in found["seeds"].items()} == pytest.approx({"0": 0.4, "1": 0.55})
    assert found["mean"]["miou"] == pytest.approx(0.475)
    assert found["spread"]["miou"] == pytest.approx(statistics.stdev([0.4, 0.55]))
    assert found["spread"]["model_resolution"]["miou"] == pytest.approx(found["spread"]["miou"])
    assert (found["folds"]["0"]["episodes"], found["folds"]["1"]["episodes"]) == (3, 3)
    classes = {fold: {name: v["iou"] for name, v in f["classes"].items()} for fold, f in found["folds"].items()}
    assert classes["0"] == pytest.approx({"ant": 0.4})
    assert classes["1"] == pytest.approx({"cat": 0.4, "dog": 0.9})  # dog in the lists that show it
    area = ((60 / 200 + 50 / 100) / 2 + (50 / 100 + 120 / 200) / 2) / 2
    assert found["mean"]["area_ratio"] == pytest.approx(area)


def test_models_and_shots_are_kept_apart_in_order():
    rows = table(*(row(m, iou, shots=k) for m, k, iou in (("z", 1, 10), ("z", 5, 20), ("a", 1, 30), ("a", 5, 40))))
    found = figures.summary(rows, DATASET)
    assert [(m, k) for m, by in found.items() for k in by] == [("z", "1"), ("z", "5"), ("a", "1"), ("a", "5")]
    assert [by[k]["mean"]["miou"] for by in found.values() for k in by] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert "spread" not in found["z"]["1"]


def test_an_interval_holds_what_was_measured():
    ious = [10, 20, 30, 40, 50, 60, 70, 80] * 4
    found = figures.summary(table(*(row("m", iou, episode=i) for i, iou in enumerate(ious))), DATASET)["m"]["1"]
    low, high = found["interval"]["miou"]
    error = statistics.stdev(ious) / 100 / len(ious) ** 0.5  # equal unions: the mean of the IoUs
    assert found["mean"]["miou"] == pytest.approx(0.45)
    assert (low, high) == pytest.approx((0.45 - 1.96 * error, 0.45 + 1.96 * error), abs=0.3 * error)


def test_lists_of_some_folds_only_are_averaged_as_they_are():
    """A list of one's own may hold one seed for one fold and another for the next."""
    found = figures.summary(table(row("m", 20), row("m", 60, fold=1, seed=1, class_id=3)), DATASET)["m"]["1"]
    assert {f: v["miou"] for f, v in found["folds"].items()} == pytest.approx({"0": 0.2, "1": 0.6})
    assert found["mean"]["miou"] == pytest.approx(0.4)


# Selection by labels: mIoU of three candidates on three folds

STEPS = {"c, step 10": 10, "c, step 20": 20, "c, step 30": 30}
MIOU = {"c, step 10": (50, 30, 40), "c, step 20": (40, 60, 10), "c, step 30": (20, 50, 40)}


def candidates(shots=1, of=MIOU):
    return [
        row(model, iou, fold=fold, shots=shots, class_id=fold + 1)
        for model, values in {"floor": (1, 2, 3), **of}.items()
        for fold, iou in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("by", "steps", "values"),
    [
        # the best on each fold; 10 and 30 are equal on fold 2, where the earlier one wins
        ("test_classes", (10, 20, 10), (50, 60, 40)),
        # on folds 1 and 2: 35, 35, 45; on 0 and 2: 45, 25, 30; on 0 and 1: 40, 50, 35
        ("base_classes", (30, 10, 20), (20, 30, 10)),
    ],
)
def test_what_labels_choose(by, steps, values):
    found, told = figures.chosen_by_labels(table(*candidates()), STEPS, by, "c (selected)")
    assert told == {f"fold {fold}, 1-shot": step for fold, step in enumerate(steps)}
    names = found["model"].to_pylist()
    assert names == ["floor"] * 3 + ["c (selected)"] * 3
    assert found.slice(3)["intersection"].to_pylist() == list(values)
    assert found.slice(3)["fold"].to_pylist() == [0, 1, 2]
    assert found.slice(0, 3)["intersection"].to_pylist() == [1, 2, 3]
    assert found.schema == SCHEMA


def test_each_number_of_shots_chooses_for_itself_and_rows_stay_in_order():
    other = {name: values[::-1] for name, values in MIOU.items()}
    both = candidates() + candidates(5, other)
    rows = table(*sorted(both, key=lambda r: (["floor", *STEPS].index(r["model"]), r["fold"], r["shots"])))
    found, told = figures.chosen_by_labels(rows, STEPS, "test_classes", "c")
    assert told == {"fold 0, 1-shot": 10, "fold 1, 1-shot": 20, "fold 2, 1-shot": 10,
                    "fold 0, 5-shot": 10, "fold 1, 5-shot": 20, "fold 2, 5-shot": 10}  # fmt: skip
    assert [(r["fold"], r["shots"]) for r in found.slice(6).to_pylist()] == [(f, k) for f in range(3) for k in (1, 5)]
    assert found.slice(6)["intersection"].to_pylist() == [50, 40, 60, 60, 40, 50]


def test_the_choice_is_of_the_pooled_figure():
    """Step 20 has the better mean of episodes, step 10 the better sums; the field's mIoU decides."""
    rows = table(
        row("c, step 10", 50, union=1000),
        row("c, step 10", 10, episode=1),
        row("c, step 20", 30, union=1000),
        row("c, step 20", 90, episode=1),
    )
    assert figures.chosen_by_labels(rows, STEPS, "test_classes", "c")[1] == {"fold 0, 1-shot": 10}


# Examples


def test_worst_median_and_best_of_each_fold():
    """Of the last model, the fewest shots and the first seed; the first way speaks for the episode."""
    ious = {0: (40, 10, 70, 20, 90), 1: (30, 30, 80, 30)}
    rows = [row("floor", 100, fold=f, shots=k, seed=s) for f in ious for k in (1, 5) for s in (3, 4)]
    for fold, values in ious.items():
        rows += [row("m", iou, fold=fold, seed=3, episode=i) for i, iou in enumerate(values)]
        rows += [row("m", 0, fold=fold, seed=3, episode=i, way=1, class_id=2) for i in range(len(values))]
        rows += [row("m", 0, fold=fold, seed=4, episode=9), row("m", 0, fold=fold, shots=5, seed=3, episode=9)]
    found = figures.examples(table(*rows))
    assert {name: one["episode"] for name, one in found.items()} == {
        "fold0-worst": 1, "fold0-median": 0, "fold0-best": 4,
        "fold1-worst": 0, "fold1-median": 3, "fold1-best": 2,  # 0, 1, 3 are equal: in their order
    }  # fmt: skip
    assert {(one["model"], one["shots"], one["seed"], one["way"]) for one in found.values()} == {("m", 1, 3, 0)}


def test_a_single_episode_is_all_three():
    assert {name: r["episode"] for name, r in figures.examples(table(row("m", 5, episode=7))).items()} == {
        "fold0-worst": 7, "fold0-median": 7, "fold0-best": 7
    }  # fmt: skip
