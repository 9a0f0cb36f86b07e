"""Keys of a configuration: dataclass fields that say beside their default what they may hold and when they act.

    @dataclass
    class Keys:
        unit: str = key("segments", one_of("segments", "pixels"))
        \"\"\"What is clustered.\"\"\"
        points: int = key(64, at_least(1), when={"unit": ("pixels",)})
        \"\"\"Embeddings kept of each image.\"\"\"

`problems(keys)` names every value that does not fit, `idle(keys)` every key that does nothing beside the others. What a
rule for one value cannot say, a class says in a method `problems(self) -> list[str]`, each as `key: expected A, got B`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

When = Mapping[str, bool | tuple[Any, ...]]
"""Values of keys beside it, all of which must be so: one of several, or True = set at all and not to `none`, False =
not set."""


@dataclass(frozen=True)
class Rule:
    """What a value may be, and that in words after `expected`."""

    holds: Callable[[Any], bool]
    words: Callable[[], str]
    choices: Callable[[], tuple[Any, ...]] = tuple
    """All there are, where they can be counted."""


def one_of(*values: Any, names: Callable[[], tuple[Any, ...]] | None = None) -> Rule:
    """One of `values`, or of those that `names` finds when it is asked."""
    allowed = names or (lambda: values)
    return Rule(lambda value: value in allowed(), lambda: f"one of {', '.join(map(str, allowed()))}", allowed)


def ranged(words: str, holds: Callable[[Any], bool]) -> Rule:
    """Finite numbers for which `holds` is true, called `words`."""
    return Rule(lambda value: abs(value) != math.inf and holds(value), lambda: words)


def at_least(least: int) -> Rule:
    """A number from `least`."""
    return ranged(f"at least {least}", lambda value: value >= least)


def up_to(most: float) -> Rule:
    """A number from 0 to `most`."""
    return ranged(f"a number from 0 to {most:g}", lambda value: 0 <= value <= most)


POSITIVE = ranged("a positive number", lambda value: value > 0)
FROM_ZERO = ranged("a number from 0", lambda value: value >= 0)
SHARE = ranged("a share in (0, 1]", lambda value: 0 < value <= 1)
SHARE_OR_NONE = ranged("a share in [0, 1]", lambda value: 0 <= value <= 1)


def key(
    default: Any, rule: Rule | None = None, *, when: When | None = None, path: bool | tuple[str, ...] = False
) -> Any:
    """A dataclass field of this default.

    Args:
        default: its value where nobody sets it; a list, dictionary or dataclass is copied for each instance.
        rule: what its value, or each element of its list or tuple, may be; None (null) is always allowed where the type
            allows.
        when: under which values of the keys beside it the key does anything.
        path: whether its value, or each element of it, is the path or URL of something to be read; or the words that
            may stand in the place of one.
    """
    about = {"rule": rule, "when": when or {}, "path": path}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=about)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def problems(keys: Any) -> list[str]:
    """Everything that is wrong with an instance, as `key: expected A, got B`, keys of dataclasses below included."""
    wrong = [problem for field in dataclasses.fields(keys) for problem in _of_field(keys, field)]
    own = getattr(keys, "problems", None)
    return wrong + (own() if own else [])


def _of_field(keys: Any, field: dataclasses.Field[Any]) -> Iterator[str]:
    value, rule = getattr(keys, field.name), field.metadata.get("rule")
    if dataclasses.is_dataclass(value):
        yield from (f"{field.name}.{problem}" for problem in problems(value))
    if rule is None:
        return
    several = isinstance(value, list | tuple)
    for number, one in enumerate(value if several else [value]):
        if one is not None and not rule.holds(one):
            place = f"{field.name}[{number}]" if several else field.name
            yield f"{place}: expected {rule.words()}, got {one!r}{nearest(one, rule.choices())}"


def nearest(value: Any, known: tuple[Any, ...]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, nothing if none is near."""
    near = difflib.get_close_matches(str(value), map(str, known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def missing(keys: Any, prefix: str = "") -> list[str]:
    """Every path that is to be read and is not there, keys of dataclasses below included; URLs are not looked for.

    Nor are patterns, nor models of MLflow's registry. `prefix` stands before the names of keys in what is told.
    """
    lines = []
    for field in dataclasses.fields(keys):
        name, value = f"{prefix}{field.name}", getattr(keys, field.name)
        if dataclasses.is_dataclass(value):
            lines += missing(value, f"{name}.")
        elif words := field.metadata.get("path"):
            paths = value if isinstance(value, list | dict) else [value]
            lost = [path for path in paths if path and path not in _words(words) and _lost(path)]
            lines += [
                f"{name}: expected a file or a folder, there is no {path}; {_remedy(name, path)}" for path in lost
            ]
    return lines


def _remedy(name: str, path: str) -> str:
    return "no shell reads ~ behind =, write $HOME" if path.startswith("~") else f"set {name}=PATH"


def _words(path: bool | tuple[str, ...]) -> tuple[str, ...]:
    return path if isinstance(path, tuple) else ()


def _lost(path: str) -> bool:
    elsewhere = "://" in path or path.startswith("models:/")
    return not (elsewhere or any(mark in path for mark in "*?[{") or os.path.exists(path))


class Idle(NamedTuple):
    """Why a key does nothing, and what would let it act."""

    why: str
    remedy: str


def idle(keys: Any, prefix: str = "") -> dict[str, Idle]:
    """The keys that do nothing beside the others' values; `prefix` stands before the names of keys in what is told."""
    silent = {}
    for field in dataclasses.fields(keys):
        for name, wanted in field.metadata.get("when", {}).items():
            reason = _unmet(prefix + name, getattr(keys, name), wanted)
            if reason:
                silent[field.name] = reason
                break
    return silent


def _unmet(name: str, value: Any, wanted: bool | tuple[Any, ...]) -> Idle | None:
    if isinstance(wanted, tuple):
        shown = [str(one).lower() if isinstance(one, bool) else one for one in (value, wanted[0])]
        return None if value in wanted else Idle(f"with {name}={shown[0]}", f"set {name}={shown[1]}")
    if wanted:
        return None if value and value != "none" else Idle(f"without {name}", f"set {name}")
    return Idle(f"beside {name}={value}", f"leave {name} out") if value else None
