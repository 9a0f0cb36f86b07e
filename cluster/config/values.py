"""The text of a value on the command line, read by the type of its key.

| type of the key | how its text is read |
|---|---|
| `str` | as it stands, whatever it holds |
| `int`, `float` | a number: 12, 1_000, 1e6, -0.5 |
| `bool` | true or false, yes or no, on or off, 1 or 0 |
| `list[T]` | `[a, b]`, each element by T |
| `dict[str, T]` | `{key: a, other: b}`, each value by T; a key ends at a colon and a space, or else at the last colon |
| `A | B` | a list if it begins with [ and ends with ], else null, a number, a truth value or text, as the types allow |
| `Any` | null, true, false, a number, a [list] or a {dictionary}, and text if it is none of these |

An element, a key or a value within brackets is what stands between '...' or "..." if it begins and ends with them.
Nothing else has a meaning: no escapes, no interpolation, no splitting at spaces.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_WORDS = {"null": None, "true": True, "false": False}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_CLOSING = {"[": "]", "{": "}"}
_UNIONS = (typing.Union, types.UnionType)
#: The order in which the types of a union are tried: text takes whatever the others leave.
_ORDER = (types.NoneType, int, float, bool)


def read(text: str, kind: Any) -> Any:
    """The value that `text` means for a key of type `kind`.

    Raises:
        ValueError: saying what was expected and what came, if the text means no such value.
    """
    if kind is str:
        return text
    if kind is Any:
        return _anything(text)
    if kind in (int, float, bool, types.NoneType):
        return _scalar(text, kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        elements = _elements(text, "[", kind)
        if typing.get_origin(parts[0]) is list and elements and not any(one.startswith("[") for one in elements):
            raise ValueError(f"expected a list of lists [[a,b],[c,d]], got {text!r}; write [{text}] in its place")
        return [_inner(element, parts[0]) for element in elements]
    if origin is dict:
        entries = map(_entry, _elements(text, "{", kind))
        return {_inner(key, str): _inner(value, parts[1]) for key, value in entries}
    if origin in _UNIONS:
        return _union(text, parts)
    raise TypeError(f"no rule reads a value of type {kind}")


def fit(value: Any, kind: Any) -> Any:
    """A value of a preset as one of type `kind`: a whole number may stand for a number.

    Raises:
        ValueError: saying what was expected and what came.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (isinstance(kind, type) and origin is None and type(value) is kind):
        return value
    if origin is list and isinstance(value, list):
        return [fit(one, parts[0]) for one in value]
    if origin is dict and isinstance(value, dict):
        return {str(key): fit(one, parts[1]) for key, one in value.items()}
    for part in parts if origin in _UNIONS else ():
        with contextlib.suppress(ValueError):
            return fit(value, part)
    raise ValueError(f"expected {describe(kind)}, got {value!r}")


def describe(kind: Any) -> str:
    """The type in words: `text`, `a whole number or null`."""
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Any: "any value"}
    if kind is types.NoneType:
        return "null"
    if kind in words:
        return words[kind]
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return f"a list [a,b], each {describe(parts[0])}"
    if typing.get_origin(kind) is dict:
        return f"a dictionary {{key: a, other: b}}, each value {describe(parts[1])}"
    return " or ".join(map(describe, parts))


def _scalar(text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return _TRUTH[text.lower()]
        if kind is int:
            return _whole(text)
        return float(text) if kind is float else {"null": None}[text]
    except (KeyError, ValueError):
        raise ValueError(f"expected {describe(kind)}, got {text!r}") from None


def _whole(text: str) -> int:
    """`12`, and `1e6` because it is a whole number as well."""
    if _NUMBER.fullmatch(text) and not text.lstrip("+-").isdigit() and float(text).is_integer():
        return int(float(text))
    return int(text)


def _union(text: str, kinds: tuple[Any, ...]) -> Any:
    lists = [kind for kind in kinds if typing.get_origin(kind) is list]
    if lists and text.startswith("[") and text.endswith("]"):
        return read(text, lists[0])
    others = [kind for kind in kinds if kind not in lists]
    for kind in sorted(others, key=lambda kind: _ORDER.index(kind) if kind in _ORDER else len(_ORDER)):
        try:
            return read(text, kind)
        except ValueError as error:
            problem = error
    if len(others) > 1 or lists:
        raise ValueError(f"expected {' or '.join(map(describe, kinds))}, got {text!r}")
    raise problem


def _anything(text: str) -> Any:
    if text[:1] == "[" and text.endswith("]"):
        return read(text, list[Any])
    if text[:1] == "{" and text.endswith("}"):
        return read(text, dict[str, Any])
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text


def _inner(text: str, kind: Any) -> Any:
    """What stands within brackets: a text in quotes is never a number or null."""
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        return read(text[1:-1], str if kind is Any else kind)
    return read(text, kind)


def _elements(text: str, bracket: str, kind: Any) -> list[str]:
    """The parts between the commas of `[a, b]` or `{a, b}`."""
    text = text.strip()
    if not (text.startswith(bracket) and text.endswith(_CLOSING[bracket]) and len(text) > 1):
        raise ValueError(f"expected {describe(kind)}, got {text!r}")
    within = text[1:-1]
    if not within.strip():
        return []
    cuts = [-1, *_marks(within, ","), len(within)]
    parts = [within[start + 1 : stop].strip() for start, stop in itertools.pairwise(cuts)]
    if "" in parts:
        raise ValueError(f"expected something before and after each comma, got {text!r}; write '' for an empty text")
    return parts


def _entry(text: str) -> tuple[str, str]:
    """Key and value of `key: value`."""
    colons = list(_marks(text, ":"))
    if not colons:
        raise ValueError(f"expected key: value, got {text!r}")
    at = next((colon for colon in colons if text[colon + 1 : colon + 2].isspace()), colons[-1])
    return text[:at].strip(), text[at + 1 :].strip()


def _marks(text: str, mark: str) -> Iterator[int]:
    """Where `mark` stands outside of quotes and inner brackets."""
    depth, position, before = 0, 0, ","
    while position < len(text):
        character = text[position]
        if character in "'\"" and before in ",:[{":
            position = _quote_ends(text, position)
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == mark and not depth:
            yield position
        before = before if character.isspace() else character
        position += 1
    if depth:
        raise ValueError(f"expected brackets in pairs, got {text!r}; put a text with a single one in quotes")


def _quote_ends(text: str, start: int) -> int:
    """The quote that closes the one at `start`, before a comma, colon, bracket or the end; `start` if there is none."""
    closing = re.compile(re.escape(text[start]) + r"(?=\s*([,:\]}]|$))").search(text, start + 1)
    return closing.start() if closing else start
