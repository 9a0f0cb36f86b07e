"""What stands in code spans of README and docs is in the product: files, keys, classes, options, names of outputs."""

import re

import pytest

from tests.docs import product
from tests.docs.pages import PAGES, SPAN, blocks
from tests.places import ROOT

#: Folders of the repository, and files that lie at its root: a path below them must exist.
OURS = re.compile(r"(?:fss|cluster|jobs|conf|docs|tests|benchmarks|\.ci)/")
CAPITALS = re.compile(r"[A-Z][A-Z0-9_]*")

LINES = [
    (f"{line.number} of {page.relative_to(ROOT)}", page, span)
    for page in PAGES
    for block in blocks(page)
    if block.kind != "code"
    for line in block.lines
    if not line.unchecked
    for span in SPAN.findall(line.text)
]


def problem(span: str) -> str:
    """Why what stands in a code span cannot be right, or nothing."""
    if re.match(r"make |\.venv/", span) or span.startswith("http"):
        return ""  # tests.docs.test_commands
    if (ROOT / span).exists():
        return ""
    path, _, name = span.partition("::")
    if OURS.match(span) and " " not in span:
        return _file(path, name)
    for key, value in re.findall(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)*)=([\w.]*)", span):
        told = _key(key, value)
        if told:
            return told
    dotted = re.fullmatch(r"([A-Z]\w*)\.(\w+)", span)
    if dotted and dotted[2] not in product.members().get(dotted[1], set()):
        return f"{dotted[1]} has no {dotted[2]}"
    if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span):
        return _key(span, "") if (span.partition(".")[0]) in product.fields() else _words(span)
    return _words(span)


def _file(path: str, name: str) -> str:
    found = sorted(ROOT.glob(re.sub(r"\b[A-Z]+\b", "*", path.rstrip("/"))))  # NAME is a reader's own
    if not found and not (ROOT / f"{path}.py").is_file():
        return f"there is no {path}"
    if name and not re.search(rf"^\s*def {name}\(", found[0].read_text(), re.MULTILINE):
        return f"{path} has no {name}"
    return ""


def _key(key: str, value: str) -> str:
    group, _, rest = key.partition(".")
    parts = key.split(".")
    if parts[:2] == ["model", "options"]:
        parts = parts[2:] or ["options"]
    unknown = [part for part in parts if part not in product.fields() and part not in product.words()]
    if unknown or (rest and group not in product.fields()):
        return f"there is no key {key}"
    folder = ROOT / "conf" / key
    if folder.is_dir() and value and not CAPITALS.fullmatch(value) and not (folder / f"{value}.yaml").is_file():
        return f"there is no preset {key}={value}"
    return _words(value) if re.fullmatch(r"[a-z_]+", value) else ""


def _words(text: str) -> str:
    """Words of the span that neither code nor presets have; numbers, capitals and letters alone are a reader's own."""
    named = [word for word in re.findall(r"[A-Za-z_]\w*", text) if not CAPITALS.fullmatch(word) and len(word) > 1]
    unknown = [word for word in named if word not in product.words() and not _joined(word)]
    return f"nothing in the product is called {', '.join(unknown)}" if unknown else ""


def _joined(word: str) -> bool:
    """Whether the code puts the word together, as `holdout_` and `iou`."""
    ends = [end + 1 for end, letter in enumerate(word) if letter == "_"]
    return any(word[:end] in product.words() and word[end:] in product.words() for end in ends)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    assert [f"{where}: `{span}`: {problem(span)}" for where, of, span in LINES if of == page and problem(span)] == []


@pytest.mark.parametrize(
    "span",
    [
        "fss/heads/umtfsss.py",
        "tests/test_purity.py::test_no_such_thing",
        "conf/experiments/",
        "train.stepz",
        "trains.steps",
        "train.stepz=3",
        "experiment=photo",
        "train.optimizer=adamm",
        "UMTFSS.nothing",
        "prior_maskk",
        "metricz.json",
    ],
)
def test_what_is_not_there_is_found(span):
    assert problem(span)


@pytest.mark.parametrize(
    "span",
    [
        "fss/heads/umtfss.py",
        "tests/test_purity.py::test_imports_are_absolute",
        "conf/experiment/",
        "train.steps",
        "train.steps=3",
        "experiment=photos model=umtfss",
        "train.optimizer=mixed",
        "UMTFSS.embed",
        "prior_mask",
        "metrics.json",
        "dataset.root=FOLDER",
    ],
)
def test_what_is_there_is_let_through(span):
    assert problem(span) == ""
