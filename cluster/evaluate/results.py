"""Tables of few-shot segmentation results: models by folds, for the terminal, Markdown, LaTeX and as plain cells."""

import dataclasses
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ModelResult:
    """What one model reached under one protocol: `folds` are fractions in [0,1] by fold, None where not measured.

    `metric` is a name such as ``mIoU`` or ``FB-IoU``; `shots` the number of support images. `spread` is the standard
    deviation of the mean over seeds, if there were several; `interval` the mean's confidence interval (low, high) in
    [0,1], if it was estimated.
    """

    model: str
    metric: str
    shots: int
    folds: Sequence[float | None]
    spread: float | None = None
    interval: tuple[float, float] | None = None
    ways: int = 1
    numbers: Sequence[int] = ()
    """Of the folds, if they are not 0, 1, ..."""

    @property
    def protocol(self) -> str:
        """How tables name it: ``1-shot``, ``2-way 5-shot``."""
        return f"{self.shots}-shot" if self.ways == 1 else f"{self.ways}-way {self.shots}-shot"

    @property
    def mean(self) -> float | None:
        """The mean over the folds; None if one is missing, for a mean over fewer folds is another number."""
        values = [value for value in self.folds if value is not None]
        return sum(values) / len(values) if values and len(values) == len(self.folds) else None


@dataclass(frozen=True)
class ResultTable:
    """One metric. `groups` are protocols (``1-shot``); `cells[i][j]` belong to model i and group j: a number a column.

    `means[i][j]` is the text of that group's last number, with its spread and interval.
    """

    metric: str
    groups: list[str]
    columns: list[str]
    models: list[str]
    cells: list[list[list[float | None]]]
    means: list[list[str]]

    @property
    def without_folds(self) -> "ResultTable":
        """The last column of each group alone."""
        cells = [[numbers[-1:] for numbers in row] for row in self.cells]
        return dataclasses.replace(self, columns=self.columns[-1:], cells=cells)

    def best(self, group: int, column: int) -> float | None:
        """The largest number of a column; None if it has fewer than two, for then there is nothing to compare."""
        values = [row[group][column] for row in self.cells]
        known = [value for value in values if value is not None]
        return max(known) if len(known) > 1 else None


def tables(results: Sequence[ModelResult]) -> list[ResultTable]:
    """One table per metric; metrics and models in the order of their first appearance, ways and shots sorted."""
    return [_table(metric, [r for r in results if r.metric == metric]) for metric in _unique(r.metric for r in results)]


def _table(metric: str, results: Sequence[ModelResult]) -> ResultTable:
    count = max(len(result.folds) for result in results)
    numbers = next((result.numbers for result in results if len(result.numbers) == count), None)
    columns = [f"fold {i}" for i in numbers or range(count)] + ["mean"] * (count > 1)
    columns = columns if numbers or count > 1 else ["all classes"]
    models = _unique(result.model for result in results)
    groups = _unique(result.protocol for result in sorted(results, key=lambda r: (r.ways, r.shots)))
    by_cell = {(result.model, result.protocol): result for result in results}
    rows = [[by_cell.get((model, group)) for group in groups] for model in models]
    cells = [[_numbers(result, count) for result in row] for row in rows]
    means = [[_mean_text(result, count) for result in row] for row in rows]
    return ResultTable(metric, groups, columns, models, cells, means)


def _numbers(result: ModelResult | None, count: int) -> list[float | None]:
    if result is None:
        return [None] * (count + (count > 1))
    folds = list(result.folds) + [None] * (count - len(result.folds))
    whole = len(result.folds) == count
    return folds if count == 1 else [*folds, result.mean if whole else None]


def _mean_text(result: ModelResult | None, count: int) -> str:
    return percent(_numbers(result, count)[-1], result.spread, result.interval) if result else percent(None)


def percent(
    value: float | None, spread: float | None = None, interval: tuple[float, float] | None = None, sign: str = ""
) -> str:
    """A fraction as a percentage with one decimal; ``–`` for what was not measured; `sign` "+" shows it always.

    >>> percent(0.4567), percent(None), percent(0.4567, 0.012), percent(0.387, None, (0.379, 0.395))
    ('45.7', '–', '45.7 ± 1.2', '38.7 [37.9, 39.5]')
    """
    if value is None:
        return "–"
    text = f"{100 * value:{sign}.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")
    return text + (f" [{100 * interval[0]:{sign}.1f}, {100 * interval[1]:{sign}.1f}]" if interval else "")


def text_rows(table: ResultTable) -> list[list[str]]:
    """The table as strings: model, then every column of every group; spread and interval stand in a group's last."""
    rows = []
    for model, row, means in zip(table.models, table.cells, table.means, strict=True):
        line = [model]
        for numbers, mean in zip(row, means, strict=True):
            line += [*map(percent, numbers[:-1]), mean]
        rows.append(line)
    return rows


def results_table(results: Sequence[ModelResult], width: int | None = None) -> str:
    """Aligned plain text, one block per metric, in percent; where that is wider than `width`, the means alone."""
    blocks = "\n\n".join(_plain(table) for table in tables(results))
    if width is None or max(map(len, blocks.splitlines()), default=0) <= width:
        return blocks
    return "\n\n".join(_plain(table.without_folds) for table in tables(results))


def terminal_width() -> int | None:
    """Columns of the terminal that this process prints to; None where it prints to none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def results_markdown(results: Sequence[ModelResult]) -> str:
    """The same as Markdown tables; the best number of each column is bold."""
    return "\n\n".join(_markdown(table) for table in tables(results))


def results_latex(results: Sequence[ModelResult]) -> str:
    """The same for LaTeX with the package booktabs: one tabular per metric, the best number of each column bold."""
    return "\n\n".join(_latex(table) for table in tables(results))


def latex_row(results: Sequence[ModelResult], protocol: str) -> str:
    """The last model of the first metric as one row of a paper's table, under a comment that says what its numbers are.

    Its label carries the protocol, by which alone it can be compared.
    """
    table = tables(results)[0]
    columns = ", ".join(f"{group} {name}" for group in table.groups for name in table.columns)
    numbers = [percent(value) for values in table.cells[-1] for value in values]
    row = [latex(text) for text in (f"{table.models[-1]} ({protocol})", *numbers)]
    return f"% {table.metric} in percent, protocol {protocol}: {columns}\n{' & '.join(row)} \\\\"


def means_markdown(results: Sequence[ModelResult]) -> str:
    """The means alone, one column per metric and shots: small enough for the head of a run's page in the MLflow UI."""
    every = tables(results)
    header = [f"{group} {table.metric}" for table in every for group in table.groups]
    rows: dict[str, list[str]] = {model: [] for model in _unique(result.model for result in results)}
    for table in every:
        texts = {row[0]: row[len(table.columns) :: len(table.columns)] for row in text_rows(table)}
        for model in rows:
            rows[model] += texts.get(model, [percent(None)] * len(table.groups))
    return markdown_lines([["[%]", *header], *([model, *row] for model, row in rows.items())])


def plain_lines(rows: Sequence[Sequence[str]], above: str = "", unit: str = "") -> str:
    """Aligned columns, the first row over a rule; `above` and `unit`: a line over it, and what ends that line."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_join(row, widths) for row in rows]
    rule = "-" * max(len(line) for line in [above, *lines])
    return "\n".join([*([f"{above}{unit}"] if above else []), lines[0], rule, *lines[1:]])


def markdown_lines(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its header."""
    head, *body = [_pipe(row) for row in rows]
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])


def latex_lines(rows: Sequence[Sequence[str]], above: Sequence[str] = ()) -> str:
    """A booktabs tabular, the first row its header, `above` lines over that. Cells are LaTeX already: see `latex`."""
    head, *body = [" & ".join(row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *above, head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"])


def latex(text: str) -> str:
    r"""`text` with what LaTeX would take for a command made harmless; brackets too, which ``\\`` before them reads.

    >>> print(latex("50 % of a_b [x] ± 1"))
    50 \% of a\_b {[}x] $\pm$ 1
    """
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "–": "--",
    "\n": " ",
}


def _plain(table: ResultTable) -> str:
    rows = [["model"] + [name for _ in table.groups for name in table.columns], *text_rows(table)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    span = len(table.columns)
    above = " " * widths[0]
    for j, group in enumerate(table.groups):
        width = sum(widths[1 + j * span : 1 + (j + 1) * span]) + 2 * span
        above += f"{group} {table.metric}".rjust(width)
    return plain_lines(rows, above, "  [%]")


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join(cells).rstrip()


def _markdown(table: ResultTable) -> str:
    header = [f"{table.metric} [%]"] + [f"{group} {name}" for group in table.groups for name in table.columns]
    return markdown_lines([header, *_bold(table, text_rows(table), "**{}**")])


def _latex(table: ResultTable) -> str:
    span = len(table.columns)
    groups = [rf"\multicolumn{{{span}}}{{c}}{{{latex(f'{group} {table.metric}')} [\%]}}" for group in table.groups]
    rules = [rf"\cmidrule(lr){{{2 + j * span}-{1 + (j + 1) * span}}}" for j in range(len(groups))]
    header = ["model", *(latex(name) for _ in groups for name in table.columns)]
    rows = _bold(table, [[latex(text) for text in row] for row in text_rows(table)], r"\textbf{{{}}}")
    return latex_lines([header, *rows], [" & ".join(["", *groups]) + r" \\", " ".join(rules)])


def _bold(table: ResultTable, rows: Sequence[Sequence[str]], form: str) -> list[list[str]]:
    """The rows of `table` with the best number of each column in `form`."""
    span = len(table.columns)
    shown = []
    for row, cells in zip(rows, table.cells, strict=True):
        line = [row[0]]
        for i, text in enumerate(row[1:]):
            value, best = cells[i // span][i % span], table.best(i // span, i % span)
            line.append(form.format(text) if best is not None and value == best else text)
        shown.append(line)
    return shown


def _pipe(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
