"""README and docs as blocks of Markdown, for the tests of what they say.

What cannot be checked is marked in the text: `<!-- unchecked: WHY -->` at the end of a line speaks for the code spans
of that line, and on a line of its own for the code block that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"\s*<!-- unchecked: (\S.*?) -->")
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Line:
    """A line as it is read: without its mark."""

    number: int
    text: str
    unchecked: bool


@dataclass(frozen=True)
class Block:
    """`kind` is heading, prose, item, table or code; `language` is that of code."""

    page: Path
    kind: str
    lines: tuple[Line, ...]
    language: str = ""
    unchecked: bool = False

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.lines[0].number}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    found: list[Block] = []
    marked = False  # whether a mark of its own waits for the code block that follows
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    kind = ""
    for number, raw in lines:
        line = Line(number, MARK.sub("", raw), bool(MARK.search(raw)))
        if raw.startswith("```"):
            found.append(_code(page, raw.removeprefix("```").strip(), marked, lines))
            marked, kind = False, ""
        elif not line.text.strip():
            marked, kind = line.unchecked, ""
        else:
            before, kind = kind, _kind(line.text, kind)
            starts = kind != before or (kind in ("item", "heading") and not raw.startswith("  "))
            earlier = () if starts else found.pop().lines
            found.append(Block(page, kind, (*earlier, line)))
    return found


def _code(page: Path, language: str, marked: bool, lines: Iterator[tuple[int, str]]) -> Block:
    inside = []
    for number, raw in lines:
        if raw.startswith("```"):
            return Block(page, "code", tuple(inside), language, marked)
        inside.append(Line(number, raw, marked))
    raise AssertionError(f"{page}: a code block has no end")


def _kind(text: str, before: str) -> str:
    if text.startswith("#"):
        return "heading"
    if text.startswith("|"):
        return "table"
    if re.match(r"\s*[*-] ", text) or (before == "item" and text.startswith("  ")):
        return "item"
    return "prose"


def cells(line: str) -> list[str]:
    """The cells of a table's row; a backslash keeps a bar."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def plain(text: str) -> str:
    """Running text as a reader hears it: a code span is one word, a link is its words."""
    return re.sub(r"[*_]{2}", "", LINK.sub(r"\1", SPAN.sub("code", text)))


def sentences(text: str) -> Iterator[str]:
    """The sentences of running text."""
    yield from re.split(r"(?<=[.!?])\s+", " ".join(plain(text).split()))


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    bare = LINK.sub(r"\1", heading.lstrip("# ").replace("`", "")).lower()
    return re.sub(r"[^\w\- ]", "", bare).strip().replace(" ", "-")


def commands(block: Block) -> list[str]:
    """The lines of a shell block, joined where they end in a backslash, without remarks."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    return [line for line in (re.sub(r"\s+# .*", "", line).strip() for line in lines) if line]
