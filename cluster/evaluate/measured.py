"""What an evaluation leaves for its readers beside its numbers: tables, bars of the classes, and its run in MLflow."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.evaluate.results import ModelResult, latex_row, markdown_lines, results_latex, results_markdown
from cluster.storage import paths
from cluster.tracking.journal import Journal

NAMES = {
    "miou": "mIoU",
    "fb_iou": "FB-IoU",
    "miou_episode_mean": "episode-mean mIoU",
    "miou_with_background": "mIoU with background",
}
Figures = Mapping[str, Any]
"""The content of metrics.json."""


def metrics(figures: Figures) -> dict[str, str]:
    """The figures to show, with their names: the protocol's own first."""
    protocol = figures["protocol"]
    keys = [protocol["headline"], "miou", "fb_iou"]
    if max(protocol["ways"]) > 1:
        keys = [protocol["headline"], "miou", "miou_with_background"]
    return {key: _named(key, protocol["model_resolution"]) for key in dict.fromkeys(keys)}


def _named(key: str, side: int) -> str:
    where, _, name = key.rpartition(".")
    return NAMES[name] + (f" at {side} px" if where else "")


def pick(figures: Mapping[str, Any], key: str) -> float:
    """The figure of a dotted key."""
    for part in key.split("."):
        figures = figures[part]
    return float(figures)  # type: ignore[arg-type]


def results(figures: Figures) -> list[ModelResult]:
    """The rows of the results tables."""
    ways = max(figures["protocol"]["ways"])
    return [
        ModelResult(
            model,
            name,
            int(number),
            [pick(fold, key) for fold in of_shots["folds"].values()],
            spread=pick(of_shots["spread"], key) if "spread" in of_shots else None,
            interval=tuple(of_shots["interval"][key]) if key in of_shots["interval"] else None,
            ways=ways,
            numbers=tuple(map(int, of_shots["folds"])) if figures["dataset"]["folds"] > 1 else (),
        )
        for key, name in metrics(figures).items()
        for model, by_shots in figures["models"].items()
        for number, of_shots in by_shots.items()
    ]


def files(figures: Figures) -> dict[str, bytes]:
    """`table.md`, `table.tex`, `row.tex`, `classes.md` and `classes.png`."""
    rows = results(figures)
    notes = "\n".join(f"* {line}" for line in notes_on(figures))
    return {
        "table.md": f"{results_markdown(rows)}\n\n{notes}\n".encode(),
        "table.tex": f"{results_latex(rows)}\n".encode(),
        "row.tex": f"{latex_row(rows, figures['protocol']['name'])}\n".encode(),
        "classes.md": f"{per_class(figures)}\n".encode(),
        "classes.png": bars(class_scores(figures)),
    }


def notes_on(figures: Figures) -> list[str]:
    """What one has to know to compare the numbers with others."""
    protocol, selection = figures["protocol"], figures["selection"]
    notes = [
        f"{figures['dataset']['name']}, {figures['dataset']['images']} images; protocol {protocol['name']}: "
        f"{protocol['episodes']} episodes, seeds {', '.join(map(str, protocol['seeds']))}, episode list "
        f"{figures['episodes_sha256'][:12]}",
        "intersections and unions are summed per class over episodes and divided once, at the query's own resolution "
        "unless said; [ ] is the 95 % interval over episodes, ± the standard deviation over seeds",
    ]
    if protocol.get("supports") == "names":
        notes.append(
            "supports brought the names of their classes only: their masks were made of class activation maps "
            f"(IoU with the true ones {100 * protocol['support_iou']:.1f}, over all supports)"
        )
    by = str(selection.get("by", "")).replace("_", " ")
    told = {"holdout": "on held-out pseudo-tasks, without labels", "last": "as the last step"}.get(by, f"on {by}")
    if by:
        steps = selection.get("steps", selection.get("step"))
        chosen = ", ".join(f"{k}: {v}" for k, v in steps.items()) if isinstance(steps, Mapping) else steps
        notes.append(f"the trained model was selected {told} (step {chosen})")
    for number, names in figures["left_out"].items():
        notes.append(f"{number}-shot: left out for want of images: {', '.join(names)}")
    return notes


def class_scores(figures: Figures) -> dict[str, dict[str, float]]:
    """Model -> class -> IoU, for the smallest number of shots."""
    scores: dict[str, dict[str, float]] = {}
    for model, by_shots in figures["models"].items():
        first = by_shots[min(by_shots, key=int)]
        scores[model] = {c: v["iou"] for fold in first["folds"].values() for c, v in fold["classes"].items()}
    return scores


def per_class(figures: Figures) -> str:
    """IoU of each class in percent as a Markdown table, for the smallest number of shots."""
    scores = class_scores(figures)
    classes = list(dict.fromkeys(name for by_class in scores.values() for name in by_class))
    rows = [[name, *(f"{100 * s[name]:.1f}" if name in s else "–" for s in scores.values())] for name in classes]
    return markdown_lines([["IoU [%]", *scores], *rows])


def bars(scores: Mapping[str, Mapping[str, float]]) -> bytes:
    """A PNG: a bar for the last model, best class first, and a mark for each other model."""
    from matplotlib.figure import Figure

    *others, main = scores
    order = sorted(scores[main], key=lambda name: scores[main][name])
    figure = Figure(figsize=(8, 1.4 + 0.24 * len(order)), dpi=110, layout="constrained")
    axis = figure.subplots()
    places = range(len(order))
    axis.barh(places, [100 * scores[main][name] for name in order], 0.7, color="#9ecae1", label=main)
    for number, model in enumerate(others):
        shown = [(place, 100 * scores[model][name]) for place, name in enumerate(order) if name in scores[model]]
        axis.scatter(
            [x for _, x in shown], [y for y, _ in shown], s=60, marker="|", color=f"C{number + 1}", label=model
        )
    axis.set_yticks(places, order, fontsize=8)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlim(0, 100)
    axis.set_xlabel("IoU [%]")
    axis.grid(axis="x", linewidth=0.4)
    axis.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def log(journal: Journal, folder: Path, figures: Figures, gallery: Sequence[str]) -> None:
    """The evaluation into its run: figures, tables, the list of episodes, the pictures named in `gallery`."""
    *_, last = figures["models"]
    for model, by_shots in figures["models"].items():
        suffix = "" if model == last else f"/{_short(model)}"
        for number, of_shots in by_shots.items():
            values = {key.replace(".", "/"): pick(of_shots["mean"], key) for key in metrics(figures)}
            values["area_ratio"] = pick(of_shots["mean"], "area_ratio")
            journal.metrics({f"evaluate/{key}_{number}shot{suffix}": value for key, value in values.items()})
    journal.params({"episodes_sha256": figures["episodes_sha256"]})
    journal.tags({"mlflow.note.content": paths.read_bytes(folder / "table.md").decode()})
    for name in ("metrics.json", "episodes.parquet", "episode_list.parquet", *files(figures)):
        journal.artifact(folder / name)
    for number, name in enumerate(gallery):
        journal.image("predictions", paths.read_bytes(folder / name), step=number)


def _short(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.replace("prototype read-out", "floor"))
