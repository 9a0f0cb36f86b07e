"""The field's metrics from integers that add: sum intersections and unions first, divide once, last.

One episode is a row of counts (`Counts`); workers return rows, whoever owns them concatenates, and every figure is a
function of the rows. There is no other accumulator, so 1 and N workers cannot disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fss.grid import enlarge
from fss.images import VOID


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixels of one episode at the query's own resolution; void pixels are in none of them."""

    intersection: int
    union: int
    background_intersection: int
    background_union: int
    predicted: int
    true: int


def count(prediction: np.ndarray, truth: np.ndarray) -> Counts:
    """Compare an (H, W) 0/1 prediction with an (H, W) truth in {0, 1, 255}.

    Raises:
        ValueError: for other shapes or values.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"expected prediction and truth of one shape, got {prediction.shape} and {truth.shape}")
    if not np.isin(truth, (0, 1, VOID)).all():
        raise ValueError(f"expected a truth of 0, 1 and {VOID} (void), got {np.unique(truth)[:10].tolist()}")
    if not np.isin(prediction, (0, 1)).all():
        raise ValueError(f"expected a prediction of 0 and 1, got {np.unique(prediction)[:10].tolist()}")
    valid = truth != VOID
    yes, real = (prediction == 1) & valid, truth == 1
    both, predicted, true, total = (int(a.sum()) for a in (yes & real, yes, real, valid))
    union = predicted + true - both
    return Counts(both, union, total - union, total - both, predicted, true)


def predict(logits: torch.Tensor, size: tuple[int, int], corners: bool) -> np.ndarray:
    """(1, 2, h, w) logits of cells to a (*size) uint8 mask in {0, 1}: foreground where its logit is the larger one."""
    larger = enlarge(logits, size, corners)[0]
    return (larger[1] > larger[0]).to(torch.uint8).cpu().numpy()


def summarise(rows: Sequence[Mapping[str, int]]) -> dict[str, object]:
    """All figures of one set of episodes; each row holds `class_id` and the fields of `Counts`. Fractions in [0, 1].

    * `miou`: intersections and unions summed per class over episodes, divided once, averaged over classes
      (PFENet, HSNet, UMTFSS and most of the field);
    * `miou_episode_mean`: IoU of each episode averaged inside a class, then over classes (MaskSplit's metric);
    * `fb_iou`: foreground and background summed over all episodes, the mean of the two ratios;
    * `area_ratio`: predicted over true foreground pixels, the first thing to look at when mIoU disappoints.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("expected at least one episode, got none; the fold has no class with enough images")
    columns = {name: np.array([row[name] for row in rows], dtype=np.int64) for name in ("class_id", *_FIELDS)}
    per_class = {int(c): _class_figures(columns, columns["class_id"] == c) for c in np.unique(columns["class_id"])}
    foreground = _ratio(columns["intersection"].sum(), columns["union"].sum())
    background = _ratio(columns["background_intersection"].sum(), columns["background_union"].sum())
    return {
        "miou": float(np.mean([figures["iou"] for figures in per_class.values()])),
        "miou_episode_mean": float(np.mean([figures["iou_episode_mean"] for figures in per_class.values()])),
        "fb_iou": (foreground + background) / 2,
        "area_ratio": _ratio(columns["predicted"].sum(), columns["true"].sum()),
        "episodes": len(rows),
        "classes": per_class,
    }


_FIELDS = tuple(field.name for field in dataclasses.fields(Counts))


def _class_figures(columns: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    intersections, unions = columns["intersection"][mask], columns["union"][mask]
    each = np.where(unions > 0, intersections / np.maximum(unions, 1), 1.0)
    return {
        "iou": _ratio(intersections.sum(), unions.sum()),
        "iou_episode_mean": float(each.mean()),
        "area_ratio": _ratio(columns["predicted"][mask].sum(), columns["true"][mask].sum()),
        "episodes": int(mask.sum()),
    }


def _ratio(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else 1.0
