"""README and docs are short, plain, and have figures only where the command stands that makes them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import LINK, PAGES, Block, blocks, cells, plain, sentences, slug
from tests.places import ROOT

README_LINES = 120
PARAGRAPH_LINES = 4
SENTENCE_WORDS = 25
LINE_LENGTH = 120

#: A measured figure in running text. What intervals are called (95 %) is none.
UNITS = r"(?:%|(?:mIoU|IoU|points?|per cent|minutes?|hours?|seconds?|times|[kMG]i?B|ms)\b)"
FIGURE = re.compile(rf"(?<![\w.])(?!95 %)\d+(?:[.,]\d+)*\s?{UNITS}")
#: Columns of a table that hold measured figures, and what a command looks like in it.
MEASURED = re.compile(r"mIoU|FB-IoU|\btime\b|seconds|minutes")
COMMAND = re.compile(r"`(?:make \w+|\.venv/bin/python -m [\w.]+|experiment=\w+[^`]*)`")


def running(block: Block) -> list[str]:
    """Texts of a block that are read as prose."""
    if block.kind == "table":
        return [cell for number, line in enumerate(block.lines) if number != 1 for cell in cells(line.text)]
    return [block.text.lstrip("*- ")] if block.kind in ("prose", "item") else []


def too_long(block: Block) -> list[str]:
    return [one for text in running(block) for one in sentences(text) if len(one.split()) > SENTENCE_WORDS]


def tall(block: Block) -> list[str]:
    return [block.where] if block.kind in ("prose", "item") and len(block.lines) > PARAGRAPH_LINES else []


def wide(block: Block) -> list[str]:
    return [f"{line.number}" for line in block.lines if block.kind != "table" and len(line.text) > LINE_LENGTH]


def loose_figures(block: Block) -> list[str]:
    """Figures outside of tables, and tables of figures without a command."""
    if block.kind in ("prose", "item"):
        return FIGURE.findall(plain(block.text))
    if block.kind == "table" and MEASURED.search(block.lines[0].text) and not COMMAND.search(block.text):
        return [block.lines[0].text]
    return []


def broken_tables(block: Block) -> list[str]:
    """Rows with another number of cells than the header, or a header without its rule."""
    if block.kind != "table":
        return []
    rows = [cells(line.text) for line in block.lines]
    rule = len(rows) > 2 and all(re.fullmatch(r":?-{3,}:?", cell) for cell in rows[1])
    odd = [line.text for line, row in zip(block.lines, rows, strict=True) if len(row) != len(rows[0])]
    return odd + ([] if rule else [block.lines[0].text])


def odd_ticks(block: Block) -> list[str]:
    """Lines on which a code span does not end: nothing would check it."""
    return [line.text for line in block.lines if block.kind != "code" and line.text.count("`") % 2]


CHECKS: dict[str, Callable[[Block], list[str]]] = {
    "sentences": too_long,
    "paragraphs": tall,
    "lines": wide,
    "figures": loose_figures,
    "tables": broken_tables,
    "code spans": odd_ticks,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.parametrize("check", CHECKS)
def test_every_page_is_plain(page, check):
    problems = [f"{block.where}: {found}" for block in blocks(page) for found in CHECKS[check](block)]
    assert problems == []


WRONG = {
    "sentences": "One " + "two " * 25 + "three.",
    "paragraphs": "a\n" * 5,
    "lines": "a" * 121,
    "figures": "It takes 6.5 minutes.",
    "tables": "| a | b |\n|---|---|\n| 1 |",
    "code spans": "a `b\nc`",
}


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_not_plain_is_found(check, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{WRONG[check]}\n")
    assert [found for block in blocks(page) for found in CHECKS[check](block)]


def test_a_table_of_figures_needs_its_command(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("| model | 1-shot mIoU |\n|---|---|\n| a | 3 |\n")
    assert loose_figures(blocks(page)[0])
    page.write_text("| `make demo` | 1-shot mIoU |\n|---|---|\n| a | 3 |\n")
    assert not loose_figures(blocks(page)[0])


def test_the_readme_is_short_and_shows_a_picture():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= README_LINES
    assert re.search(r"^!\[.{20,}\]\(docs/overview.png\)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_opens_with_its_title_and_an_answer(page):
    first, second, *rest = blocks(page)
    assert (first.kind, second.kind) == ("heading", "prose")
    assert first.text.startswith("# ")
    assert not [block.where for block in rest if block.kind == "heading" and block.text.startswith("# ")]


# ------------------------------------------------------------------------------------------------ links


def links(page: Path) -> list[tuple[str, str]]:
    """(where, target) of every link and picture of a page."""
    return [(block.where, to) for block in blocks(page) if block.kind != "code" for _, to in LINK.findall(block.text)]


def missing(page: Path, target: str) -> str:
    """What of a relative link is not there, or nothing."""
    if re.match(r"https?://", target):
        return ""
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists():
        return f"there is no {target}"
    anchors = {slug(block.text) for block in blocks(file) if block.kind == "heading"} if anchor else set()
    return "" if not anchor or anchor in anchors else f"{target}: expected an anchor of {sorted(anchors)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert [f"{where}: {missing(page, to)}" for where, to in links(page) if missing(page, to)] == []


def test_links_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title: with `code=`\n\n[a](#a-title-with-code) [b](#b) [c](c.md) [d](https://example.org)\n")
    assert [bool(missing(page, to)) for _, to in links(page)] == [False, True, True, False]


def test_every_page_can_be_reached_from_the_readme():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        near = {(page.parent / to.partition("#")[0]).resolve() for _, to in links(page) if "://" not in to}
        ahead += [one for one in near if one in PAGES and one not in seen]
    assert set(PAGES) - seen == set()
