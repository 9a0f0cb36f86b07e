"""The figures of quality.json in words and tables, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = list[list[str]]


def note(figures: Mapping[str, Any]) -> str:
    """What the section shows, in a few sentences."""
    clusters, regions = figures["clusters"], figures["regions"]
    seen, there = regions["shards"]
    part = f"all {there}" if seen == there else f"{seen} of {there}"
    sentences = [
        f"{clusters['number']} clusters, {clusters['empty']} of them empty, hold {regions['number']} regions of "
        f"{part} shards; the entropy of their sizes is {clusters['entropy']:.2f} of its maximum, and they explain "
        f"{_percent(clusters['explained'])} % of the variance.",
        "A row of the atlas is a cluster: its most central regions, each of another image.",
    ]
    if clusters["shown"] < clusters["number"] - clusters["empty"]:
        sentences.append(f"The {clusters['shown']} largest ones are shown (quality.clusters).")
    if "masks" in figures:
        sentences.append(
            f"Class masks of {figures['masks']['images']} images were looked at for these figures alone. The class "
            "named is the most frequent one among a cluster's pixels, with its share; an object is a class of an image."
        )
    return " ".join(sentences)


def tables(figures: Mapping[str, Any]) -> list[Rows]:
    """Regions and their tasks; with masks, the agreement with classes and the best regions of objects."""
    shown = [_regions(figures["regions"]), tasks(figures["tasks"])]
    if figures.get("objects"):
        shown += [_objects(figures["objects"]), _classes(figures["classes"])]
    return shown


def _regions(regions: Mapping[str, Any]) -> Rows:
    head = ["regions", "share [%]", *(f"area, {name} [%]" for name in ("10th percentile", "median", "90th percentile"))]
    return [
        head,
        ["all", _percent(1), *_areas(regions["area"])],
        ["usable for tasks", _percent(regions["usable"]), *_areas(regions["usable_area"])],
    ]


def _areas(figures: Mapping[str, float]) -> list[str]:
    return [_percent(figures.get(f"p{q}")) for q in (10, 50, 90)]


def tasks(figures: Mapping[str, float]) -> Rows:
    """Usable regions and their tasks with nearest partners; what needs masks is missing without them."""
    names = {
        "area": "mean area [%]",
        "border": "border [%]",
        "tasks": "with a partner [%]",
        "likeness": "cosine to it [%]",
        "mutual": "mutual partners [%]",
        "object": "IoU > .5 with an object [%]",
        "inside": "inside one object [%]",
        "same_class": "tasks of one class [%]",
        "clean": "clean tasks [%]",
    }
    there = [key for key in names if key in figures]
    return [
        ["usable regions", *(names[key] for key in there)],
        [f"{figures['regions']:.0f}", *(_percent(figures[key]) for key in there)],
    ]


def lines(figures: Mapping[str, float]) -> str:
    """The same for a terminal, a figure a line."""
    head, row = tasks(figures)
    width = max(map(len, head))
    return "\n".join(f"{name:<{width}}  {value:>6}" for name, value in zip(head, row, strict=True))


def _objects(objects: Mapping[str, Mapping[str, float]]) -> Rows:
    names = {"all": "any region", "usable": "any usable region"}
    head = [
        "best region of each object",
        "objects",
        "IoU [%]",
        "found [%]",
        "completeness [%]",
        "precision [%]",
        "area ratio",
    ]
    keys = ("iou", "found", "completeness", "precision")
    rows = []
    for name, one in objects.items():
        shares = [_percent(one[key]) for key in keys]
        rows.append([names.get(name, f"layer {name}"), f"{one['objects']:.0f}", *shares, f"{one['area_ratio']:.2f}"])
    return [head, *rows]


def _classes(classes: Mapping[str, Mapping[str, float]]) -> Rows:
    head = ["clusters as classes", "NMI [%]", "purity [%]", "accuracy [%]", "mIoU [%]"]
    keys = ("nmi", "purity", "accuracy", "miou")
    names = {"all": "all layers"}
    return [head, *[[names.get(n, f"layer {n}"), *(_percent(one[key]) for key in keys)] for n, one in classes.items()]]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
