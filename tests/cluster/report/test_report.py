import doctest
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import cluster.evaluate.results
import cluster.report.charts
import cluster.report.page
from cluster.report.charts import bar_chart, line_chart, nice_ticks, thin
from cluster.report.page import (
    Chart,
    Gallery,
    Headline,
    ModelResult,
    NextCommand,
    Report,
    StageRow,
    Tile,
    means_markdown,
    render,
    results_markdown,
    results_table,
    stages_table,
    write,
)

RESULTS = [
    ModelResult("prototype", "mIoU", 1, [0.10, 0.20, 0.30, 0.40]),
    ModelResult("umtfss", "mIoU", 1, [0.30, 0.30, 0.30, 0.35], spread=0.012),
    ModelResult("umtfss", "mIoU", 5, [0.5, None, 0.5, 0.5]),
    ModelResult("umtfss", "FB-IoU", 1, [0.6, 0.6, 0.6, 0.6]),
]
EVIL = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Collects tags that are open, every attribute, and the cells of tables."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.cells = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def parse(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def full_report(text="x"):
    picture = np.zeros((8, 8, 3), np.uint8)
    return Report(
        title=f"T {text}",
        summary=text,
        headlines=[Headline(text, text, text)],
        facts={text: text},
        stages=[StageRow(f"shard{text}", 75, 1000, text, 2_500_000, text)],
        results=[ModelResult(f"m{text}", f"mIoU{text}", 1, [0.25])],
        results_note=text,
        classes={f"base{text}": {f"cat{text}": 0.2}, f"main{text}": {f"cat{text}": 0.4, "dog": 0.3}},
        charts=[Chart(text, {text: [(0, 1), (1, 2)], "b": [(0, 2)]}, text, text)],
        galleries=[Gallery(f"G {text}", [Tile(picture, text)], text)],
        commands=[NextCommand(text, text)],
        config=text,
        footer=text,
    )


@pytest.mark.parametrize("module", [cluster.report.page, cluster.evaluate.results, cluster.report.charts])
def test_documented_examples(module):
    assert doctest.testmod(module).failed == 0


# Tables


def test_the_mean_is_of_all_folds_or_nothing():
    assert RESULTS[0].mean == pytest.approx(0.25)
    assert RESULTS[2].mean is None
    assert ModelResult("m", "mIoU", 1, []).mean is None


def test_plain_table():
    lines = results_table(RESULTS[:3]).splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[0].split() == ["1-shot", "mIoU", "5-shot", "mIoU", "[%]"]
    assert lines[1].split() == ["model", *(["fold", "0", "fold", "1", "fold", "2", "fold", "3", "mean"] * 2)]
    assert lines[3].split() == ["prototype", "10.0", "20.0", "30.0", "40.0", "25.0", *["–"] * 5]
    assert " ".join(lines[4].split()) == "umtfss 30.0 30.0 30.0 35.0 31.2 ± 1.2 50.0 – 50.0 50.0 –"


def test_markdown_marks_the_best_of_a_column_with_two_numbers():
    blocks = results_markdown(RESULTS).split("\n\n")
    assert len(blocks) == 2
    rows = [line.strip("| ").split(" | ") for line in blocks[0].splitlines()]
    assert rows[2][:6] == ["prototype", "10.0", "20.0", "**30.0**", "**40.0**", "25.0"]
    assert rows[3][1:6] == ["**30.0**", "**30.0**", "**30.0**", "35.0", "**31.2 ± 1.2**"]
    assert "**" not in "".join(rows[3][6:]), "one number in a column is not the best of anything"
    assert "**" not in blocks[1]


def test_means_alone():
    lines = means_markdown(RESULTS).splitlines()
    assert lines[0] == "| [%] | 1-shot mIoU | 5-shot mIoU | 1-shot FB-IoU |"
    assert lines[2] == "| prototype | 25.0 | – | – |"
    assert lines[3] == "| umtfss | 31.2 ± 1.2 | – | 60.0 |"


def test_a_pipe_in_a_name_does_not_break_markdown():
    assert r"| a\|b | 50.0 |" in results_markdown([ModelResult("a|b", "mIoU", 1, [0.5])])


def test_one_fold_has_no_mean_column():
    assert "mean" not in results_table([ModelResult("m", "mIoU", 1, [0.5])])


def test_stages_table():
    lines = stages_table([StageRow("shard", 30, 300, "images", 1_500_000), StageRow("train", 3600)]).splitlines()
    assert lines[1].split() == ["shard", "30.0", "s", "300", "images", "10", "images/s", "1.5", "MB"]
    assert lines[2].split() == ["train", "1:00:00"]
    assert lines[3].split() == ["total", "1:00:30"]


# Charts


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-0.3, 0.31, [-0.2, 0, 0.2]),
        (5, 5, [5]),
        (1e6, 2e6, [1e6, 1.2e6, 1.4e6, 1.6e6, 1.8e6, 2e6]),
    ],
)
def test_nice_ticks(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_long_curve_is_thinned_by_means():
    points = thin([(i, float(i % 2)) for i in range(4000)])
    assert len(points) == 400
    assert all(y == 0.5 for _, y in points)
    assert thin([(0, 1.0)]) == [(0, 1.0)]


def test_gaps_split_a_curve_and_nothing_draws_nothing():
    svg = line_chart(Chart("loss", {"a": [(0, 1.0), (1, 2.0), (2, float("nan")), (3, 1.0), (4, 0.5)]}))
    assert svg.count("<path") == 2
    assert line_chart(Chart("loss", {"a": [(0, float("nan"))]})) == ""
    assert "NaN" not in svg
    assert "nan" not in svg


def test_bars_are_as_long_as_the_scores():
    svg = bar_chart({"base": {"cat": 0.25}, "main": {"dog": 0.5, "cat": 1.0}})
    widths = [float(width) for width in re.findall(r'class="bar"[^>]* width="([\d.]+)"', svg)]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert svg.index(">cat<") < svg.index(">dog<"), "best class first"
    assert svg.count('class="tick') == 1


# The page


def test_the_page_needs_nothing_from_outside_and_runs_nothing():
    page = parse(render(full_report()))
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    sources = [value for key, value in page.attributes if key in {"src", "href", "srcset", "data", "action"}]
    assert sources
    assert all(value.startswith("data:image/webp;base64,") for value in sources)
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import", render(full_report()))
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_all_text_is_escaped():
    html = render(full_report(EVIL))
    assert "<script" not in html
    page = parse(html)
    assert "script" not in page.tags
    assert html.count("&lt;script&gt;") >= 25


def test_the_page_has_the_right_numbers():
    cells = parse(render(Report("r", results=RESULTS))).cells
    assert cells[:11] == ["prototype", "10.0", "20.0", "30.0", "40.0", "25.0", *["–"] * 5]
    assert cells[16] == "31.2 ± 1.2"


def test_the_best_of_a_column_is_marked():
    html = render(Report("r", results=RESULTS[:2]))
    assert '<td class="mean best">31.2 ± 1.2</td>' in html
    assert '<td class="best">40.0</td>' in html
    assert '<td class="mean">25.0</td>' in html


def test_what_is_empty_leaves_no_trace():
    html = render(Report("only a title"))
    assert "<h2>" not in html
    parse(html)


def test_write_leaves_one_small_file(tmp_path):
    path = write(full_report(), tmp_path / "deep" / "report.html")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert path.read_text().startswith("<!doctype html>")
    assert path.stat().st_size < 20_000
