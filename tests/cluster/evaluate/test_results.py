"""Tables of results: intervals, ways, and LaTeX that compiles whatever a model is called."""

import io
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate.results import (
    ModelResult,
    latex,
    latex_lines,
    latex_row,
    means_markdown,
    results_latex,
    results_markdown,
    results_table,
    tables,
    terminal_width,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


RESULTS = [
    ModelResult("floor_1 & co", "mIoU", 1, [0.3, 0.35], interval=(0.31, 0.34)),
    ModelResult("[new] 100 %", "mIoU", 1, [0.4, 0.374], spread=0.004, interval=(0.379, 0.395)),
    ModelResult("[new] 100 %", "mIoU", 5, [0.5, 0.5]),
    ModelResult("[new] 100 %", "mIoU", 1, [0.2, 0.3], ways=2),
]


def check_latex(text):
    """What a LaTeX run would trip over: braces and environments in balance, cells a row as the header says."""
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not set("%#_^~±–") & set(bare)
    assert bare.count("$") % 2 == 0
    assert not re.search(r"\\\\\s*[\[*]", bare), "an argument of the line break"
    for tabular in re.findall(r"\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}", bare, re.DOTALL):
        spec, body = tabular
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert row.count("&") + sum(spans) == len(spec) - 1, row
    assert bare.count(r"\begin{") == bare.count(r"\end{")


def test_the_interval_stands_beside_the_mean_after_the_spread():
    lines = results_table(RESULTS).splitlines()
    assert lines[3].split()[-1] == "–"
    assert "32.5 [31.0, 34.0]" in lines[3]
    assert "38.7 ± 0.4 [37.9, 39.5]" in lines[4]
    assert "| **38.7 ± 0.4 [37.9, 39.5]** |" in results_markdown(RESULTS)
    assert means_markdown(RESULTS[:1]).splitlines()[-1] == "| floor_1 & co | 32.5 [31.0, 34.0] |"
    single = results_table([ModelResult("m", "mIoU", 1, [0.387], interval=(0.379, 0.395))])
    assert single.splitlines()[-1] == "m      38.7 [37.9, 39.5]"


def test_a_narrow_terminal_gets_the_means_alone(monkeypatch):
    whole = results_table(RESULTS)
    widest = max(map(len, whole.splitlines()))
    assert results_table(RESULTS, widest) == whole
    lines = results_table(RESULTS, widest - 1).splitlines()
    assert lines[1].split() == ["model", "mean", "mean", "mean"]
    assert lines[4].split() == ["[new]", "100", "%", "38.7", "±", "0.4", "[37.9,", "39.5]", "50.0", "25.0"]
    assert terminal_width() is None
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", Terminal())
    assert terminal_width() == 80


def test_groups_are_ways_and_shots():
    (table,) = tables(list(reversed(RESULTS)))
    assert table.groups == ["1-shot", "5-shot", "2-way 1-shot"]
    assert table.cells[table.models.index("[new] 100 %")][2][:2] == [0.2, 0.3]
    assert results_table(RESULTS).splitlines()[0].split()[-4:] == ["2-way", "1-shot", "mIoU", "[%]"]


def test_latex_by_hand():
    assert results_latex(RESULTS[:2]).splitlines() == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & \multicolumn{3}{c}{1-shot mIoU [\%]} \\",
        r"\cmidrule(lr){2-4}",
        r"model & fold 0 & fold 1 & mean \\",
        r"\midrule",
        r"floor\_1 \& co & 30.0 & 35.0 & 32.5 {[}31.0, 34.0] \\",
        r"{[}new] 100 \% & \textbf{40.0} & \textbf{37.4} & \textbf{38.7 $\pm$ 0.4 {[}37.9, 39.5]} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_papers_row_is_the_last_models_and_names_its_protocol():
    more = [*RESULTS[:3], ModelResult("[new] 100 %", "FB-IoU", 1, [0.6, 0.7])]
    assert latex_row(more, "hsnet").splitlines() == [
        "% mIoU in percent, protocol hsnet: "
        "1-shot fold 0, 1-shot fold 1, 1-shot mean, 5-shot fold 0, 5-shot fold 1, 5-shot mean",
        r"{[}new] 100 \% (hsnet) & 40.0 & 37.4 & 38.7 & 50.0 & 50.0 & 50.0 \\",
    ]
    gap = latex_row([ModelResult("m", "mIoU", 1, [0.3, None])], "ours").splitlines()[1]
    assert gap == r"m (ours) & 30.0 & -- & -- \\"


def test_latex_of_several_tables_is_sound():
    more = [*RESULTS, ModelResult("f", "FB-IoU", 1, [0.6])]
    text = results_latex(more)
    assert text.count(r"\begin{tabular}") == 2
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}" in text
    check_latex(text)


@settings(max_examples=60)
@given(st.text(alphabet="ab&%$#_{}~^\\<>[]*± –\n", min_size=1))
def test_no_name_breaks_latex(name):
    check_latex(results_latex([ModelResult(name, "mIoU", 1, [0.1, 0.2]), ModelResult("other", "mIoU", 1, [0.3, None])]))
    check_latex(latex_lines([["a", "b"], [latex(name), "1"]]))
