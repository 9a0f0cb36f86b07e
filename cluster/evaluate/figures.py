"""From the rows of an evaluation to its figures, by model, shots, fold and seed; selection among candidates."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fss.datasets import Dataset
from fss.evaluation import bootstrap, metrics
from fss.evaluation.metrics import FIELDS, MODEL

MEANS = ("miou", "miou_episode_mean", "miou_with_background", "fb_iou", "area_ratio")
_COLUMNS = ("class_id", "way", *FIELDS, *(f"{MODEL}{name}" for name in FIELDS))
_BOOTSTRAP = tuple(field.name for field in dataclasses.fields(bootstrap.Columns))


def summary(rows: pa.Table, dataset: Dataset) -> dict[str, Any]:
    """Figures by model and number of shots; fractions in [0, 1].

    `folds`: those of `metrics.summarise` for each fold, averaged over the seeds. `mean`: over folds, then seeds, with
    `model_resolution` inside. `interval`: 95 % bootstrap interval over episodes of the mean mIoU and FB-IoU. With
    several seeds, `seeds`: each seed's mean over folds; `spread`: their standard deviation.
    """
    return {
        model: {str(shots): _figures(part, dataset) for shots, part in _parts(of_model, "shots")}
        for model, of_model in _parts(rows, "model")
    }


def _parts(rows: pa.Table, column: str) -> Iterator[tuple[Any, pa.Table]]:
    """The rows of each value of a column, in the order of first appearance."""
    for value in rows[column].unique().to_pylist():
        yield value, rows.filter(pc.equal(rows[column], value))


def _figures(rows: pa.Table, dataset: Dataset) -> dict[str, Any]:
    summaries = {
        (seed, fold): metrics.summarise(columns(part))
        for seed, of_seed in _parts(rows, "seed")
        for fold, part in _parts(of_seed, "fold")
    }
    seeds, folds = sorted({s for s, _ in summaries}), sorted({f for _, f in summaries})
    by_fold = {
        str(f): _named(_average([summaries[s, f] for s in seeds if (s, f) in summaries]), dataset) for f in folds
    }
    by_seed = {str(s): _means([summaries[s, f] for f in folds if (s, f) in summaries]) for s in seeds}
    replicates = bootstrap.replicate(bootstrap.Columns.of(_plain(rows, _BOOTSTRAP)))
    intervals = {name: bootstrap.interval(replicates, name) for name in ("miou", "fb_iou")}
    return {
        "folds": by_fold,
        "mean": _average(list(by_seed.values())),
        "interval": {name: [interval.low, interval.high] for name, interval in intervals.items()},
    } | ({"seeds": by_seed, "spread": _spread(list(by_seed.values()))} if len(seeds) > 1 else {})


def columns(rows: pa.Table) -> dict[str, np.ndarray]:
    """The int64 columns that metrics are computed from."""
    return _plain(rows, _COLUMNS)


def _plain(rows: pa.Table, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy() for name in names}


def _means(by_fold: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over the folds of what is comparable between them."""
    chosen = [{key: figures[key] for key in (*MEANS, "model_resolution")} for figures in by_fold]
    return _average(chosen)


def _average(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of nested figures, key by key, over those that have the key; counts of episodes are added."""
    keys = dict.fromkeys(key for figures in several for key in figures)
    return {key: _join(key, [figures[key] for figures in several if key in figures]) for key in keys}


def _join(key: str, values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return _average(values)
    return sum(values) if key == "episodes" else statistics.fmean(values)


def _spread(by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sample standard deviation over the seeds."""
    return {
        key: _spread([figures[key] for figures in by_seed])
        if isinstance(value, Mapping)
        else statistics.stdev(figures[key] for figures in by_seed)
        for key, value in by_seed[0].items()
    }


def _named(figures: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    return figures | {"classes": {dataset.class_names[c - 1]: v for c, v in figures["classes"].items()}}


def chosen_by_labels(rows: pa.Table, candidates: Mapping[str, int], by: str, label: str) -> tuple[pa.Table, dict]:
    """The rows with the candidates' replaced by those of the best one for each fold and number of shots.

    Args:
        rows: of all models on all folds.
        candidates: name -> training step.
        by: `test_classes`, the best on the very episodes that are reported: what most published codes do; or
            `base_classes`, the best on the episodes of the other folds.
        label: the name of the composed model.

    Returns:
        The table and, by fold and shots, the step that was chosen.
    """
    others = rows.filter(pc.invert(pc.is_in(rows["model"], pa.array(list(candidates)))))
    parts, steps = [], {}
    for shots, of_shots in _parts(rows, "shots"):
        scores = {
            name: {fold: float(metrics.summarise(columns(part))["miou"]) for fold, part in _parts(of_model, "fold")}  # type: ignore[arg-type]
            for name, of_model in _parts(of_shots, "model")
            if name in candidates
        }
        for fold in next(iter(scores.values())):
            judged = {n: [v for f, v in s.items() if (f == fold) == (by == "test_classes")] for n, s in scores.items()}
            best = max(judged, key=lambda name: (statistics.fmean(judged[name]), -candidates[name]))
            mine = pc.and_(pc.equal(of_shots["model"], best), pc.equal(of_shots["fold"], fold))
            part = of_shots.filter(mine)
            parts.append(part.set_column(0, "model", pa.array([label] * len(part))))
            steps[f"fold {fold}, {shots}-shot"] = candidates[best]
    order = [(name, "ascending") for name in ("fold", "shots", "ways", "seed", "episode", "way")]
    return pa.concat_tables([others, pa.concat_tables(parts).sort_by(order)]), steps


def examples(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """Best, median and worst episode of every fold for the last model, fewest shots and first seed: name -> row."""
    last = rows.filter(pc.equal(rows["model"], rows["model"][-1].as_py()))
    for name in ("shots", "seed"):
        last = last.filter(pc.equal(last[name], pc.min(last[name])))
    by_name = {}
    for fold, part in _parts(last.filter(pc.equal(last["way"], 0)), "fold"):
        iou = part["intersection"].to_numpy() / np.maximum(part["union"].to_numpy(), 1)
        order = np.lexsort([part["episode"].to_numpy(), iou])
        for kind, place in (("worst", 0), ("median", len(order) // 2), ("best", len(order) - 1)):
            by_name[f"fold{fold}-{kind}"] = part.slice(int(order[place]), 1).to_pylist()[0]
    return by_name
