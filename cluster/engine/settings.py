"""Settings of stages: frozen dataclasses of plain values, made of the configuration's groups and hashed as they are."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

from fss import shards

T = TypeVar("T")


def picked(kind: type[T], *groups: object, **given: Any) -> T:
    """A `kind`, a dataclass, of `given` and, for its other fields, of what `groups` have under the same names.

    So a stage's settings are listed once, as the fields of their class. A field that no group has keeps its default:
    it is a key of another choice than the one that was made.

    Raises:
        TypeError: if there is neither.
    """
    values = dict(given)
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        holder = next((group for group in groups if hasattr(group, one.name)), None)
        if one.name not in values and holder is not None:
            value = copy.deepcopy(getattr(holder, one.name))
            values[one.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def plain(settings: Any) -> dict[str, Any]:
    """A settings object as JSON has it.

    Raises:
        TypeError: if it holds something else.
    """
    return dict(json.loads(shards.dumps(dataclasses.asdict(settings))))


def complaints(*looks: Callable[[], object]) -> list[str]:
    """What each of `looks` says, in a ValueError, is wrong; nothing where all is well."""
    wrong = []
    for look in looks:
        try:
            look()
        except ValueError as error:
            wrong.append(str(error))
    return list(dict.fromkeys(wrong))
