"""Tables of few-shot segmentation results: models by folds, for the terminal, for Markdown and as plain cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What one model reached under one protocol: `folds` are fractions in [0,1] by fold, None where not measured.

    `metric` is a name such as ``mIoU`` or ``FB-IoU``; `shots` the number of support images. `spread` is the standard
    deviation of the mean over seeds, if there were several.
    """

    model: str
    metric: str
    shots: int
    folds: Sequence[float | None]
    spread: float | None = None

    @property
    def mean(self) -> float | None:
        """The mean over the folds; None if one is missing, for a mean over fewer folds is another number."""
        values = [value for value in self.folds if value is not None]
        return sum(values) / len(values) if values and len(values) == len(self.folds) else None


@dataclass(frozen=True)
class Table:
    """One metric. `groups` are the shots; `cells[i][j]` belong to model i and group j: one number per column."""

    metric: str
    groups: list[int]
    columns: list[str]
    models: list[str]
    cells: list[list[list[float | None]]]
    spreads: list[list[float | None]]

    def best(self, group: int, column: int) -> float | None:
        """The largest number of a column; None if it has fewer than two, for then there is nothing to compare."""
        values = [row[group][column] for row in self.cells]
        known = [value for value in values if value is not None]
        return max(known) if len(known) > 1 else None


def tables(results: Sequence[Result]) -> list[Table]:
    """One table per metric; metrics, models and shots in the order of their first appearance (shots sorted)."""
    return [_table(metric, [r for r in results if r.metric == metric]) for metric in _unique(r.metric for r in results)]


def _table(metric: str, results: Sequence[Result]) -> Table:
    count = max(len(result.folds) for result in results)
    columns = [f"fold {i}" for i in range(count)] + ["mean"] if count > 1 else ["all classes"]
    models = _unique(result.model for result in results)
    groups = sorted({result.shots for result in results})
    found = {(result.model, result.shots): result for result in results}
    rows = [[found.get((model, shots)) for shots in groups] for model in models]
    cells = [[_numbers(result, count) for result in row] for row in rows]
    spreads = [[result.spread if result else None for result in row] for row in rows]
    return Table(metric, groups, columns, models, cells, spreads)


def _numbers(result: Result | None, count: int) -> list[float | None]:
    if result is None:
        return [None] * (count + (count > 1))
    folds = list(result.folds) + [None] * (count - len(result.folds))
    whole = len(result.folds) == count
    return folds if count == 1 else [*folds, result.mean if whole else None]


def percent(value: float | None, spread: float | None = None) -> str:
    """A fraction as a percentage with one decimal; ``–`` for what was not measured.

    >>> percent(0.4567), percent(None), percent(0.4567, 0.012)
    ('45.7', '–', '45.7 ± 1.2')
    """
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")


def text_rows(table: Table) -> list[list[str]]:
    """The table as strings: model, then every column of every group; the spread stands in a group's last column."""
    rows = []
    for model, row, spreads in zip(table.models, table.cells, table.spreads, strict=True):
        line = [model]
        for numbers, spread in zip(row, spreads, strict=True):
            line += [percent(value) for value in numbers[:-1]] + [percent(numbers[-1], spread)]
        rows.append(line)
    return rows


def results_table(results: Sequence[Result]) -> str:
    """Aligned plain text for a terminal, one block per metric, in percent."""
    return "\n\n".join(_plain(table) for table in tables(results))


def results_markdown(results: Sequence[Result]) -> str:
    """The same as Markdown tables; the best number of each column is bold."""
    return "\n\n".join(_markdown(table) for table in tables(results))


def means_markdown(results: Sequence[Result]) -> str:
    """The means alone, one column per metric and shots: small enough for the head of a run's page in the MLflow UI."""
    every = tables(results)
    header = [f"{shots}-shot {table.metric}" for table in every for shots in table.groups]
    rows: dict[str, list[str]] = {model: [] for model in _unique(result.model for result in results)}
    for table in every:
        texts = {row[0]: row[len(table.columns) :: len(table.columns)] for row in text_rows(table)}
        for model in rows:
            rows[model] += texts.get(model, [percent(None)] * len(table.groups))
    lines = [_pipe(["[%]", *header]), "|---|" + "---:|" * len(header)]
    return "\n".join([*lines, *(_pipe([model, *row]) for model, row in rows.items())])


def _plain(table: Table) -> str:
    header = ["model"] + [name for _ in table.groups for name in table.columns]
    rows = text_rows(table)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    span = len(table.columns)
    groups = " " * widths[0]
    for j, shots in enumerate(table.groups):
        width = sum(widths[1 + j * span : 1 + (j + 1) * span]) + 2 * span
        groups += f"{shots}-shot {table.metric}".rjust(width)
    lines = [_join(row, widths) for row in [header, *rows]]
    rule = "-" * max(len(line) for line in [groups, *lines])
    return "\n".join([f"{groups}  [%]", lines[0], rule, *lines[1:]])


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join(cells).rstrip()


def _markdown(table: Table) -> str:
    header = [f"{table.metric} [%]"] + [f"{shots}-shot {name}" for shots in table.groups for name in table.columns]
    lines = [_pipe(header), "|---|" + "---:|" * (len(header) - 1)]
    span = len(table.columns)
    for row, cells in zip(text_rows(table), table.cells, strict=True):
        shown = [row[0]]
        for i, text in enumerate(row[1:]):
            value, best = cells[i // span][i % span], table.best(i // span, i % span)
            shown.append(f"**{text}**" if best is not None and value == best else text)
        lines.append(_pipe(shown))
    return "\n".join(lines)


def _pipe(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
