"""What a comparison leaves: its tables for terminal, Markdown, LaTeX and programs, a picture, and an MLflow run."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.compare.compare import METRICS, Comparison, Group
from cluster.config.compare import CompareConfig
from cluster.engine import publish
from cluster.engine.places import own_folder
from cluster.evaluate.results import (
    ModelResult,
    latex,
    latex_lines,
    markdown_lines,
    percent,
    plain_lines,
    results_latex,
    results_markdown,
    results_table,
)
from cluster.tracking.shipper import Journal, Shipper, tracking_folder, tracking_place
from fss import shards
from fss.evaluation.bootstrap import Difference

MARK = " *"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's

Section = tuple[str, list[list[str]]]
"""A title, and rows of cells of which the first is the header."""


def plain(comparison: Comparison) -> str:
    """For a terminal."""
    blocks = [f"{title}\n{plain_lines(_padded(rows))}" for title, rows in _sections(comparison)]
    return "\n\n".join([_about(comparison), results_table(comparison.results), *blocks])


def markdown(comparison: Comparison) -> str:
    """For a page; the picture is beside it."""
    blocks = [f"## {title}\n\n{markdown_lines(rows)}" for title, rows in _sections(comparison)]
    picture = "![Differences by class](compare.png)"
    return (
        "\n\n".join(["# Comparison", _about(comparison), results_markdown(comparison.results), *blocks, picture]) + "\n"
    )


def tex(comparison: Comparison) -> str:
    """For a paper: tabulars alone, to be put into tables; they need the package booktabs."""
    blocks = [
        f"% {latex(title)}\n{latex_lines([[latex(cell) for cell in row] for row in rows])}"
        for title, rows in _sections(comparison)
    ]
    return "\n\n".join([f"% {latex(_about(comparison))}", results_latex(comparison.results), *blocks]) + "\n"


def data(comparison: Comparison) -> dict[str, Any]:
    """For programs: all figures, fractions in [0, 1]."""
    about = comparison.models[0].evaluation.figures
    return {
        **{key: about.get(key) for key in ("dataset", "protocol", "episodes_sha256")},
        "base": comparison.base,
        "samples": comparison.samples,
        "seed": comparison.seed,
        "models": {m.label: {"model": m.name, "folder": str(m.evaluation.folder)} for m in comparison.models},
        "figures": [_record(comparison, key) | asdict(interval) for key, interval in comparison.figures.items()],
        "differences": [
            _record(comparison, key) | asdict(gap) | {"excludes_zero": gap.clear}
            for key, gap in comparison.gaps.items()
        ],
    }


def _record(comparison: Comparison, key: tuple[str, Group, str | int]) -> dict[str, Any]:
    label, (ways, shots), figure = key
    name = {"metric": figure} if isinstance(figure, str) else {"metric": "iou", "class": comparison.class_names[figure]}
    return {"model": label, "ways": ways, "shots": shots, **name}


def _about(comparison: Comparison) -> str:
    dataset = comparison.models[0].evaluation.figures.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else dataset
    return (
        f"{name}, the same episodes for all models; in brackets 95 % intervals over {comparison.samples} resamplings "
        f"of the episodes. Differences are paired;{MARK} marks those whose interval excludes zero. No interval is "
        "corrected for the number of comparisons: of classes without a difference, one in twenty is marked."
    )


def _sections(comparison: Comparison) -> Iterator[Section]:
    rows = [
        [label, _name(group, METRICS[metric]), _gap(gap), percent(gap.below)]
        for metric in METRICS
        for group in comparison.groups
        for label in comparison.others
        for gap in [comparison.gaps[label, group, metric]]
    ]
    yield f"Differences to {comparison.base}", [["model", "metric", "difference", "below zero [%]"], *rows]
    for group in comparison.groups:
        header = [f"{_name(group, 'IoU')} [%]", comparison.base, *comparison.others]
        yield (
            f"{_name(group, 'IoU')} by class, and differences to {comparison.base}",
            [header, *_class_rows(comparison, group)],
        )


def _class_rows(comparison: Comparison, group: Group) -> Iterator[list[str]]:
    for c in comparison.classes(group):
        base = comparison.figures[comparison.base, group, c]
        gaps = [_gap(comparison.gaps[label, group, c]) for label in comparison.others]
        yield [comparison.class_names[c], percent(base.value, None, (base.low, base.high)), *gaps]


def _name(group: Group, metric: str) -> str:
    return f"{ModelResult('', metric, group[1], [], ways=group[0]).protocol} {metric}"


def _gap(gap: Difference) -> str:
    return percent(gap.value, None, (gap.low, gap.high), sign="+") + (MARK if gap.clear else "")


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells without the mark get its width, so that numbers stand under each other."""
    return [[c + " " * len(MARK) if c.endswith("]") and c[0] in "+-" else c for c in row] for row in rows]


def picture(comparison: Comparison) -> bytes:
    """A PNG: for every class, and the mean above them, each model's difference and interval; pale: it holds zero."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    groups, others = comparison.groups, comparison.others
    lead = next((m.label for m in comparison.models if m.given and m.label != comparison.base), others[0])
    order = sorted(comparison.classes(groups[0]), key=lambda c: comparison.gaps[lead, groups[0], c].value)
    height = 1.5 + 0.2 * (len(order) + 1) * max(1.0, 0.6 * len(others))
    figure = Figure(figsize=(2.5 + 4.5 * len(groups), height), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axis, group in zip(axes, groups, strict=True):
        _bars(axis, comparison, group, [*order, "miou"])
        axis.set_xlabel("IoU, difference [%]")
        axis.set_title(_name(group, "").strip(), fontsize=10)
    names = [comparison.class_names[c] for c in order]
    axes[0].set_yticks(range(len(order) + 1), [*names, "all (mIoU)"], fontsize=8)
    axes[0].set_ylim(-0.7, len(order) + 0.7)
    figure.suptitle(f"Differences to {comparison.base}\n95 % intervals; pale where they hold zero", fontsize=10)
    handles = [Patch(color=_colour(number), label=label) for number, label in enumerate(others)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(others), 2), fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _bars(axis: Any, comparison: Comparison, group: Group, figures: Sequence[str | int]) -> None:
    thick = 0.8 / len(comparison.others)
    for number, label in enumerate(comparison.others):
        places, gaps = [], []
        for place, figure in enumerate(figures):
            gap = comparison.gaps.get((label, group, figure))
            if gap is not None:  # a class can be missing for want of images with this many supports
                places.append(place + 0.4 - thick * (number + 0.5))
                gaps.append(gap)
        bars = axis.barh(places, [100 * gap.value for gap in gaps], thick, color=_colour(number))
        for bar, gap in zip(bars, gaps, strict=True):
            bar.set_alpha(1.0 if gap.clear else 0.3)
        ends = [100 * gap.low for gap in gaps], [100 * gap.high for gap in gaps]
        axis.hlines(places, *ends, color="#333333", linewidth=1)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.axhline(len(figures) - 1.5, color="#999999", linewidth=0.8, linestyle=":")
    axis.grid(axis="x", linewidth=0.4)
    axis.set_axisbelow(True)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def conclude(comparison: Comparison, config: CompareConfig) -> Path:
    """Write compare.{md,tex,json,png} to `out`, log them as one MLflow run, and return the folder."""
    digest = shards.sha256(shards.dumps(data(comparison)))[:8]
    run = comparison.first.evaluation.run
    out = own_folder(config.out or str(run.parent / "compare" / digest), "out", "compare.md")
    files = {
        "compare.md": markdown(comparison).encode(),
        "compare.tex": tex(comparison).encode(),
        "compare.png": picture(comparison),
    }
    for name, content in files.items():
        publish.write_bytes(out / name, content)
    publish.write_json(out / "compare.json", data(comparison))
    folder = tracking_folder(out.parent, out.name)
    shipper = (
        Shipper(folder, *tracking_place(config.tracking, run.parent))
        if config.tracking.enabled
        else contextlib.nullcontext()
    )
    with shipper, Journal(folder, f"compare-{digest}") as journal:
        _log(comparison, out, journal)
    return out


def _log(comparison: Comparison, out: Path, journal: Journal) -> None:
    about = comparison.models[0].evaluation.figures
    journal.params({key: about[key] for key in ("dataset", "protocol") if key in about})
    journal.params({"base": comparison.base, "samples": comparison.samples, "seed": comparison.seed})
    for number, model in enumerate(comparison.models):
        journal.params({f"model_{number}": model.label, f"folder_{number}": str(model.evaluation.folder)})
        journal.dataset(model.label, str(about["episodes_sha256"]), str(model.evaluation.folder), context="compared")
    journal.tags({"mlflow.note.content": markdown(comparison).rpartition("\n\n")[0]})  # without the picture, a file
    for kind, figures in (("", comparison.figures), ("_difference", comparison.gaps)):
        for (label, group, figure), interval in figures.items():
            if isinstance(figure, str):
                name = f"compare/{figure}{kind}_{_name(group, '').strip().replace(' ', '_')}"
                bounds = asdict(interval)
                journal.metrics({f"{name}/{label}": bounds.pop("value")})
                journal.metrics({f"{name}_{key}/{label}": value for key, value in bounds.items()})
    for path in sorted(out.glob("compare.*")):
        journal.artifact(path)
