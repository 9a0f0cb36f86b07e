"""What the product has, for tests of what the words say of it: commands, keys, words of its code and presets."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from cluster.config.help import Command
from tests.places import ROOT

ROOMS = ("fss", "cluster", "jobs", "benchmarks")


def compose(job: str, arguments: list[str]) -> Any:
    """The configuration of a command as the job itself makes it; ValueError for what it refuses."""
    command = getattr(importlib.import_module(f"jobs.{job}"), "COMMAND", Command(job, ""))  # stages share theirs
    return command.load(arguments)


def has_module(name: str) -> bool:
    """Whether `python -m NAME` finds a file of this repository."""
    return (ROOT / f"{name.replace('.', '/')}.py").is_file()


def has_tool(name: str) -> bool:
    """Whether a program is installed beside this Python."""
    return Path(sys.executable).with_name(name).is_file()


@functools.cache
def targets() -> frozenset[str]:
    """The targets of the Makefile."""
    return frozenset(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Every file of the product, parsed."""
    return {path: ast.parse(path.read_text()) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


@functools.cache
def fields() -> frozenset[str]:
    """Names of the fields of all classes: every key of the configuration is one."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found |= {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    return frozenset(found)


@functools.cache
def members() -> dict[str, set[str]]:
    """Names of a class's methods, fields and what it puts into itself, by the class's name."""
    found: dict[str, set[str]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                mine = found.setdefault(node.name, set())
                mine |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                mine |= {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
                mine |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and _stored(part)}
    return found


def _stored(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


@functools.cache
def words() -> frozenset[str]:
    """Every word of the code, docstrings and comments aside, of the presets and of the names of their files."""
    found: set[str] = set()
    for path, tree in trees().items():
        found |= set(path.relative_to(ROOT).with_suffix("").parts)
        for text in _texts(tree):
            found |= set(re.findall(r"\w+", text))
    for path in (ROOT / "conf").rglob("*.yaml"):
        found |= {path.stem, *re.findall(r"\w+", str(yaml.safe_load(path.read_text())))}
    return frozenset(found)


def _texts(tree: ast.Module) -> list[str]:
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        found += [
            value for name in ("id", "attr", "name", "arg") if isinstance(value := getattr(node, name, None), str)
        ]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            found.append(node.value)
    return found
