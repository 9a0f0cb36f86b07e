"""Choices by name: a module in the right folder is found by its file name, nothing is registered in a list."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """The modules of a package's folder, sorted; files are listed, none is imported.

    Packages below it, and names that begin with _, are no choices.
    """
    return _listed(tuple(importlib.import_module(package).__path__))


@functools.cache
def _listed(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Looked up once: checks of a configuration ask for it hundreds of times."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if not m.ispkg and not m.name.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """One of the modules by name.

    Raises:
        ValueError: naming those that there are, and the nearest.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected one of {', '.join(known)}, got {name!r}{hint}")
    return importlib.import_module(f"{package}.{name}")
