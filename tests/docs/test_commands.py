"""Every command of README and docs can be typed as it stands: programs, targets, files, and keys that compose.

Words in capitals are a reader's own: files and folders of these names are made before a command is composed.
"""

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tests.docs import product
from tests.docs.pages import PAGES, SPAN, Block, blocks, commands
from tests.places import ROOT

#: Programs that are nobody's of this repository; their arguments that name our files are checked.
OUTSIDE = {"git", "docker", "kubectl", "sbatch", "export"}
LANGUAGES = {"sh", "python", "yaml", "text"}
FILES = {"FILE", "IMAGE", "MASK", "TRAIN"}

CODE = [block for page in PAGES for block in blocks(page) if block.kind == "code"]
SHELL = [
    pytest.param(line, id=f"{block.where} {line[:60]}")
    for block in CODE
    if block.language == "sh" and not block.unchecked
    for line in commands(block)
]
SPANS = [
    pytest.param(span, id=f"{block.where} {span[:60]}")
    for page in PAGES
    for block in blocks(page)
    if block.kind != "code"
    for line in block.lines
    if not line.unchecked
    for span in SPAN.findall(line.text)
    if re.match(r"make [a-z]|\.venv/", span)
]


def problems(command: str) -> list[str]:
    """What of a command line is not there, or is refused; pipes are commands of their own."""
    parts = [shlex.split(part) for part in command.split(" | ")]
    return [found for words in parts for found in (*_program(words), *_files(words), *_modules(words))]


def _program(words: list[str]) -> list[str]:
    first = words[0]
    if first == "make":
        known = [word for word in words[1:] if "=" not in word]
        return [f"there is no target {word}" for word in known if word not in product.targets()]
    if first.startswith(".venv/bin/"):
        name = first.removeprefix(".venv/bin/")
        return [] if product.has_tool(name) else [f"there is no {first}"]
    return [] if first in OUTSIDE else [f"{first} is not on a clean shell's path"]


def _files(words: list[str]) -> list[str]:
    ours = [word for word in words if "=" not in word and re.match(r"(cluster|conf|docs|benchmarks|tests)/", word)]
    return [f"there is no {word}" for word in ours if not (ROOT / word).exists()]


def _modules(words: list[str]) -> list[str]:
    if "-m" not in words:
        return []
    module, *arguments = words[words.index("-m") + 1 :]
    if not product.has_module(module):
        return [f"there is no {module}"]
    room, _, name = module.partition(".")
    if room == "benchmarks":
        known = (ROOT / "benchmarks" / f"{name}.py").read_text()
        flags = [word for word in arguments if word.startswith("--") and f'"{word}"' not in known]
        keys = [word for word in arguments if re.match(r"[a-z_]+(\.[a-z_]+)+=", word)]
        return [f"{module} has no {flag}" for flag in flags] + _composed("pipeline", ["experiment=photos", *keys])
    return _composed(name, arguments) if arguments else []


def _composed(job: str, arguments: list[str]) -> list[str]:
    try:
        product.compose(job, arguments)
    except ValueError as error:
        return [str(error)]
    return []


def make_what_readers_have(command: str) -> None:
    """The files and folders that a command names in capitals, in the current folder."""
    for name in re.findall(r"[=\[,]([A-Z][A-Z0-9_]+(?:\.\w+)?)\b", command):
        Path(name).touch() if name in FILES or "." in name else Path(name).mkdir(exist_ok=True)


@pytest.mark.parametrize("command", [*SHELL, *SPANS])
def test_a_command_works_as_it_stands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_what_readers_have(command)
    assert problems(command) == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("make tea", "there is no target tea"),
        ("python -m jobs.pipeline", "python is not on a clean shell's path"),
        (".venv/bin/pythen -m jobs.pipeline", "there is no .venv/bin/pythen"),
        (".venv/bin/python -m jobs.pipelines", "there is no jobs.pipelines"),
        (".venv/bin/python -m jobs.train experiment=photo", "got 'photo'"),
        (".venv/bin/python -m jobs.train experiment=photos train.stepz=3", "train.stepz"),
        (".venv/bin/python -m jobs.predict model=m", "out, query, support"),
        (".venv/bin/python -m benchmarks.cam --rooot VOC2012", "benchmarks.cam has no --rooot"),
        (".venv/bin/ray up cluster/deploy/none.yaml", "there is no cluster/deploy/none.yaml"),
        ("git archive HEAD | docker build -f docs/Dockerfile -", "there is no docs/Dockerfile"),
        (".venv/bin/ray job submit -- python -m jobs.train train.lr=fast", "train.lr"),
    ],
)
def test_what_does_not_work_is_found(command, told):
    assert any(told in problem for problem in problems(command))


@pytest.mark.parametrize("block", CODE, ids=lambda block: block.where)
def test_a_block_says_what_it_is(block):
    assert block.language in LANGUAGES
    if block.language == "text":  # a picture, not to be typed
        assert not re.search(r"^\s*(make|\.venv/|python) ", block.text, re.MULTILINE)


@pytest.mark.parametrize("block", [b for b in CODE if b.language == "python"], ids=lambda block: block.where)
def test_python_imports_what_is_there(block: Block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


def test_every_job_is_in_the_table_of_commands():
    text = (ROOT / "docs" / "commands.md").read_text()
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py") if not path.stem.startswith("_")}
    assert {job for job in jobs if f"jobs.{job}`" not in text} == set()
    assert {target for target in product.targets() if f"`make {target}`" not in text} == set()
