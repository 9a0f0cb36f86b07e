"""The report of a pipeline: one HTML file with everything in it, which opens anywhere, also inside the MLflow UI.

Fill a `Report` (only `title` is needed; what is empty leaves no trace) and call `write`. All text is escaped, and the
page forbids itself scripts and every address but its own inline pictures.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.engine import publish
from cluster.engine.progress import format_duration, format_rate
from cluster.evaluate.results import (
    ModelResult,
    ResultTable,
    means_markdown,
    percent,
    results_markdown,
    results_table,
    tables,
    text_rows,
)
from cluster.report.charts import Chart, bar_chart, line_chart
from cluster.report.style import STYLE

__all__ = [
    "Chart", "NextCommand", "Gallery", "Headline", "Report", "ModelResult", "StageRow", "Tile",
    "means_markdown", "render", "results_markdown", "results_table", "stages_table", "write",
]  # fmt: skip


@dataclass(frozen=True)
class Headline:
    """A number to see first, such as ``Headline("45.7 %", "1-shot mIoU", "prototype: 31.2 %")``."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class StageRow:
    """What a stage did: wall seconds, `items` of `unit`, and the size of what it wrote."""

    name: str
    seconds: float
    items: int = 0
    unit: str = "images"
    size: int = 0
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """A picture, (H,W,3) uint8 or PIL, with its caption."""

    image: np.ndarray | Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures of one kind; `cell` is the least width of one on the page in pixels (see `fss.drawing.pictures`)."""

    title: str
    tiles: Sequence[Tile]
    note: str = ""
    cell: int = 180
    tables: Sequence[Sequence[Sequence[str]]] = ()
    """Tables above the pictures: rows of texts, the first one the head."""


@dataclass(frozen=True)
class NextCommand:
    """How to go on: what it is good for, and the line to type."""

    purpose: str
    line: str


@dataclass
class Report:
    """All there is to say about a run. `classes`: model -> class -> IoU in [0,1], the trained model last."""

    title: str
    summary: str = ""
    headlines: Sequence[Headline] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    stages: Sequence[StageRow] = ()
    results: Sequence[ModelResult] = ()
    results_note: str = ""
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    galleries: Sequence[Gallery] = ()
    commands: Sequence[NextCommand] = ()
    config: str = ""
    footer: str = ""


def write(report: Report, path: Path | str) -> Path:
    """Write the report to `path` in one step and return the path."""
    path = Path(path)
    publish.write_bytes(path, render(report).encode())
    return path


def render(report: Report) -> str:
    """The report as one HTML page."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    sections = [
        _head(report),
        _section("Results", _results(report)),
        _section("Classes", _classes(report.classes)),
        _section("Training", _charts(report.charts)),
        *[_section(gallery.title, _gallery(gallery)) for gallery in report.galleries if gallery.tiles],
        _section("Stages", _stages(report.stages)),
        _section("Run", _run(report)),
        _section("How to go on", _commands(report.commands)),
        f"<footer>{escape(report.footer)}</footer>" if report.footer else "",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body></html>\n"
    )


def format_bytes(size: int) -> str:
    """A size in powers of 1000.

    >>> format_bytes(0), format_bytes(999), format_bytes(1_234_567)
    ('0 B', '999 B', '1.2 MB')
    """
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def stages_table(stages: Sequence[StageRow]) -> str:
    """The stages as aligned plain text, with the total time."""
    rows = [["stage", "time", "items", "rate", "written"], *[_stage_row(stage) for stage in stages]]
    rows.append(["total", format_duration(sum(stage.seconds for stage in stages)), "", "", ""])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0])] + [row[i].rjust(widths[i]) for i in range(1, 5)]).rstrip() for row in rows
    ]
    return "\n".join(lines)


def _stage_row(stage: StageRow) -> list[str]:
    time = f"{stage.seconds:.1f} s" if stage.seconds < 60 else format_duration(stage.seconds)
    items = f"{stage.items} {stage.unit}" if stage.items else ""
    rate = format_rate(stage.items, stage.seconds, stage.unit) if stage.items else ""
    return [stage.name, time, items, rate, format_bytes(stage.size) if stage.size else ""]


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>" if body else ""


def _head(report: Report) -> str:
    tiles = [
        f'<div class="tile"><b>{escape(tile.value)}</b><span>{escape(tile.label)}</span>'
        f"<small>{escape(tile.note)}</small></div>"
        for tile in report.headlines
    ]
    lead = f'<p class="lead">{escape(report.summary)}</p>' if report.summary else ""
    grid = f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""
    return f"<header><h1>{escape(report.title)}</h1>{lead}{grid}</header>"


def _results(report: Report) -> str:
    if not report.results:
        return ""
    note = f'<p class="note">{escape(report.results_note)}</p>' if report.results_note else ""
    return "".join(_result_table(table) for table in tables(report.results)) + note


def _result_table(table: ResultTable) -> str:
    span = len(table.columns)
    groups = "".join(
        f'<th class="group first" colspan="{span}">{escape(group)} {escape(table.metric)} [%]</th>'
        for group in table.groups
    )
    head = "".join(_header(name, i == 0) for _ in table.groups for i, name in enumerate(table.columns))
    rows = []
    for texts, cells in zip(text_rows(table), table.cells, strict=True):
        row = f"<td>{escape(texts[0])}</td>"
        for i, text in enumerate(texts[1:]):
            group, column = divmod(i, span)
            best = table.best(group, column)
            marks = {"first": column == 0, "mean": span > 1 and column == span - 1}
            marks["best"] = best is not None and cells[group][column] == best
            row += _cell(text, [name for name, on in marks.items() if on])
        rows.append(f"<tr>{row}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{groups}</tr><tr><th>model</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _header(name: str, first: bool) -> str:
    return f'<th class="first">{escape(name)}</th>' if first else f"<th>{escape(name)}</th>"


def _cell(text: str, marks: Sequence[str] = ()) -> str:
    kind = f' class="{" ".join(marks)}"' if marks else ""
    return f"<td{kind}>{escape(text)}</td>"


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in rows)


def _classes(scores: Mapping[str, Mapping[str, float]]) -> str:
    if not scores or not list(scores.values())[-1]:
        return ""
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    head = "".join(f"<th>{escape(model)}</th>" for model in scores)
    rows = _rows([name, *[percent(values.get(name)) for values in scores.values()]] for name in sorted(names))
    return (
        f'{bar_chart(scores)}<details><summary>All numbers</summary><div class="scroll"><table><thead><tr>'
        f"<th>IoU [%]</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _charts(charts: Sequence[Chart]) -> str:
    drawn = "".join(line_chart(chart) for chart in charts)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _gallery(gallery: Gallery) -> str:
    note = f'<p class="note">{escape(gallery.note)}</p>' if gallery.note else ""
    figures = [
        f'<figure><img alt="{escape(tile.caption)}" src="{_inline(tile.image)}">'
        f"<figcaption>{escape(tile.caption)}</figcaption></figure>"
        for tile in gallery.tiles
    ]
    shown = "".join(_plain_table(table) for table in gallery.tables)
    return f'{note}{shown}<div class="gallery" style="--cell:{int(gallery.cell)}px">{"".join(figures)}</div>'


def _plain_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in rows[0])
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{_rows(rows[1:])}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _inline(image: np.ndarray | Image.Image) -> str:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    data = io.BytesIO()
    picture.convert("RGB").save(data, "WEBP", quality=82, method=4)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"


def _stages(stages: Sequence[StageRow]) -> str:
    if not stages:
        return ""
    body = "".join(
        f"<tr>{''.join(_cell(text) for text in _stage_row(stage))}{_cell(stage.note, ['words'])}</tr>"
        for stage in stages
    )
    total = format_duration(sum(stage.seconds for stage in stages))
    size = format_bytes(sum(stage.size for stage in stages))
    head = "".join(f"<th>{name}</th>" for name in ("stage", "time", "items", "rate", "written", ""))
    foot = f"<tr><td>total</td><td>{total}</td><td></td><td></td><td>{size}</td><td></td></tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
    return f'<div class="scroll">{table}</div>'


def _run(report: Report) -> str:
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in report.facts.items())
    config = (
        f"<details><summary>Configuration</summary><pre>{escape(report.config)}</pre></details>"
        if report.config
        else ""
    )
    return (f'<dl class="facts">{facts}</dl>' if facts else "") + config


def _commands(commands: Sequence[NextCommand]) -> str:
    return "".join(f"<p>{escape(item.purpose)}</p><pre>{escape(item.line)}</pre>" for item in commands)
