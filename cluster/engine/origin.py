"""What made a stage beside its settings and inputs: code, libraries, processor. No fingerprint depends on any of it."""

from __future__ import annotations

import ast
import functools
import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.engine import compute
from cluster.engine.session import ROOT

#: Packages whose modules count. Keys do not: their values are in the settings. Tracking copies what others make.
_OURS, _APART = ("fss", "cluster"), ("cluster.config", "cluster.tracking")
#: Whoever imports it takes modules of a package by their names, and so may need any of them.
_BY_NAME = "fss.choices"


def origin(module: str) -> dict[str, Any]:
    """What would make a stage now whose work is in `module`: words by name, as a manifest has them."""
    words = {"code": code(module), **compute.here()}
    return words | ({"commit": commit} if (commit := _commit()) else {})


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is not the same in both, in words; the commit is left out, for `code` says what of it counts."""
    return compute.difference(*({name: one[name] for name in one if name != "commit"} for one in (before, now)))


@functools.cache
def code(module: str) -> str:
    """12 hex digits over the sources of `module` and of all that it imports of this project, directly or not."""
    digest = hashlib.sha256()
    for name, path in sorted(_needed(module).items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def _needed(module: str) -> dict[str, Path]:
    """The sources that `module` needs, by the names of their modules; none for a module that is not of this project."""
    sources: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _source(name)
        if path is None or name in sources:
            continue
        sources[name] = path
        todo += [one for one in _imports(name, path) if one.startswith(_OURS) and not one.startswith(_APART)]
    return sources


def _source(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


@functools.cache
def _imports(module: str, path: Path) -> tuple[str, ...]:
    """The names that a module may import, at its top or in a function, and the packages above them."""
    named = list(_named(ast.parse(path.read_bytes())))
    if _BY_NAME in named and path.name == "__init__.py":
        named += [f"{module}.{file.stem}" for file in path.parent.glob("*.py") if file != path]
    above = [name.rsplit(".", depth)[0] for name in named for depth in range(1, name.count(".") + 1)]
    return tuple(dict.fromkeys([*named, *above]))


def _named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _commit() -> str | None:
    """The commit that is checked out; None where the sources came without one, as in a Ray job."""
    if not (ROOT / ".git").exists():
        return None
    try:
        told = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.decode().strip()
