"""The field's metrics from integers that add: sum intersections and unions first, divide once, last.

One way of one episode is a row of counts (`Counts`); workers return rows, whoever owns them concatenates, and every
figure is a function of the rows. There is no other accumulator, so 1 and N workers cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from fss.imaging.images import VOID

Columns = Mapping[str, np.ndarray]
"""Rows by column: `class_id`, `way` and the fields of `Counts`, int64, one entry for each way of each episode."""

MODEL = "model_"
"""Prefix of the columns that were counted at the model's resolution."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixels of one way of an episode; void pixels are in none of them.

    The background's stand with the first way and are zero for the others, so that rows may be added.
    """

    intersection: int
    union: int
    background_intersection: int
    background_union: int
    predicted: int
    true: int


FIELDS = tuple(field.name for field in dataclasses.fields(Counts))


def count(prediction: np.ndarray, truth: np.ndarray, ways: int = 1) -> list[Counts]:
    """Compare an (H, W) prediction in {0, .., ways} with an (H, W) truth in {0, .., ways, 255}; one row a way.

    Plain and slow; `fss.evaluation.scoring` counts many episodes at once and is checked against this.

    Raises:
        ValueError: for other shapes or values.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"expected prediction and truth of one shape, got {prediction.shape} and {truth.shape}")
    for name, array, allowed in (
        ("prediction", prediction, range(ways + 1)),
        ("truth", truth, (*range(ways + 1), VOID)),
    ):
        odd = np.setdiff1d(np.unique(array), allowed)
        if len(odd):
            raise ValueError(f"expected a {name} of {_named(allowed)}, got {odd[:10].tolist()}")
    valid = truth != VOID
    rows = []
    for label in range(ways + 1):
        yes, real = (prediction == label) & valid, truth == label
        both, predicted, true = (int(a.sum()) for a in (yes & real, yes, real))
        rows.append((both, predicted + true - both, predicted, true))
    (behind, behind_union, *_), *foreground = rows
    return [
        Counts(both, union, behind * (way == 0), behind_union * (way == 0), predicted, true)
        for way, (both, union, predicted, true) in enumerate(foreground)
    ]


def _named(values: range | tuple[int, ...]) -> str:
    return ", ".join(f"{value} (void)" if value == VOID else str(value) for value in values)


def summarise(columns: Columns) -> dict[str, object]:
    """All figures of one list of episodes of one fold; fractions in [0, 1].

    * `miou`: intersections and unions summed per class over episodes, divided once, averaged over classes
      (PFENet, HSNet, UMTFSS and most of the field);
    * `miou_episode_mean`: IoU of each episode averaged inside a class, then over classes (MaskSplit's metric);
    * `miou_with_background`: as `miou`, the background counting as one more class (the pixel-level meta-learner's);
    * `fb_iou`: foreground and background summed over all episodes, the mean of the two ratios; with several ways the
      foreground is that of each way, one after the other;
    * `area_ratio`: predicted over true foreground pixels, the first thing to look at when mIoU disappoints.

    All are at the query's own resolution; `model_resolution` holds the same but the area at the model's, if the
    columns with prefix `model_` are there.

    Raises:
        ValueError: if there are no rows.
    """
    if not len(columns["class_id"]):
        raise ValueError("expected at least one episode, got none; the fold has no class with enough images")
    classes = columns["class_id"]
    figures: dict[str, object] = _figures(columns, "")
    figures["area_ratio"] = _ratio(columns["predicted"].sum(), columns["true"].sum())
    figures["episodes"] = int((columns["way"] == 0).sum())
    figures["classes"] = {int(c): _class_figures(columns, classes == c) for c in np.unique(classes)}
    if f"{MODEL}union" in columns:
        figures["model_resolution"] = _figures(columns, MODEL)
    return figures


def _figures(columns: Columns, prefix: str) -> dict[str, object]:
    classes = columns["class_id"]
    part, whole = columns[f"{prefix}intersection"], columns[f"{prefix}union"]
    per_class = [_ratio(part[classes == c].sum(), whole[classes == c].sum()) for c in np.unique(classes)]
    each = _each(part, whole)
    means = [_mean(each[classes == c]) for c in np.unique(classes)]
    background = _ratio(columns[f"{prefix}background_intersection"].sum(), columns[f"{prefix}background_union"].sum())
    return {
        "miou": _mean(per_class),
        "miou_episode_mean": _mean(means),
        "miou_with_background": _mean([*per_class, background]),
        "fb_iou": (_ratio(part.sum(), whole.sum()) + background) / 2,
    }


def _class_figures(columns: Columns, mask: np.ndarray) -> dict[str, float]:
    intersections, unions = columns["intersection"][mask], columns["union"][mask]
    return {
        "iou": _ratio(intersections.sum(), unions.sum()),
        "iou_episode_mean": _mean(_each(intersections, unions)),
        "area_ratio": _ratio(columns["predicted"][mask].sum(), columns["true"][mask].sum()),
        "episodes": int(mask.sum()),
    }


def _each(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    return np.where(unions > 0, intersections / np.maximum(unions, 1), 1.0)


def _mean(values: np.ndarray | list[float]) -> float:
    return math.fsum(values) / len(values)  # exact, so that the order of the rows changes nothing


def _ratio(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else 1.0
