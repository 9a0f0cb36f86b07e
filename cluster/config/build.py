"""From values by name to a `Config`: the keys of each choice, their types, and everything that is wrong with them.

A source, a pairing and a data set bring keys of their own, see `CHOICES`: their class follows from the name that is
chosen. A key that would do nothing under these values is an error if the user gave it. If a preset set it, it is left
out, which one line says: so what has no effect never shapes a fingerprint.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

from cluster.config import Config, contradictions
from cluster.config import values as texts
from fss import choices, keys

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Choice(NamedTuple):
    """A group whose keys depend on one of them: its name, and the package whose modules are what can be chosen."""

    key: str
    package: str

    def module(self, name: str) -> ModuleType:
        """The module of that name."""
        return choices.load(self.package, name)

    def classes(self) -> dict[str, type]:
        """The keys of everything that can be chosen."""
        return {name: self.module(name).Keys for name in choices.names(self.package)}


CHOICES = {
    "source": Choice("name", "fss.labelling.sources"),
    "pair": Choice("pairing", "fss.tasks.pairing"),
    "dataset": Choice("name", "fss.datasets"),
}


def build(values: Mapping[str, Any], given: Collection[str] = ()) -> Config:
    """The configuration of nested `values`, the rest by default; `given` are the keys that the user gave, with dots.

    Raises:
        ValueError: with every problem there is, each with what was expected, what came and where to set it.
    """
    config, wrong = examined(values, given)
    if wrong:
        raise ValueError("\n  ".join(["the configuration cannot work:", *wrong] if len(wrong) > 1 else wrong))
    return config


def examined(
    values: Mapping[str, Any],
    given: Collection[str] = (),
    further: Callable[[Config], list[str]] | None = None,
    thorough: bool = True,
) -> tuple[Config, list[str]]:
    """The configuration, by default where something is wrong, and everything that is wrong; see `build`.

    `further` says what else is wrong. Heads, whose options take seconds to look into, are left for last: not looked
    into beside other mistakes, unless one of their options is given, nor where it need not be `thorough`.
    """
    schema, wrong = classes(values)
    reader = _Reader(Config, schema)
    config = reader.read(Config, values, "")
    wrong += [*reader.problems, *keys.problems(config)]
    left_out = reader.idle | _idle(config, values)
    wrong += _leave_out(config, left_out, given)
    wrong += further(config) if further else []
    thorough = thorough and (not wrong or any(name.startswith("model.options") for name in given))
    wrong += contradictions.problems(config, thorough)
    if thorough:
        silent = contradictions.idle_options(config)
        wrong += _leave_out(config, silent, given)
        left_out |= silent
    told = [f"{name} ({why})" for name, (why, _) in left_out.items()]
    if told and not wrong:
        logger.info("settings of presets that do nothing here: %s", ", ".join(told))
    return config, wrong


def simple(kind: type[T], values: Mapping[str, Any], schema: Mapping[str, type] | None = None) -> tuple[T, list[str]]:
    """A dataclass of keys, by default where something is wrong, and what is wrong with keys by themselves."""
    reader = _Reader(kind, schema or {})
    config = reader.read(kind, values, "")
    return config, [*reader.problems, *keys.problems(config)]


def classes(values: Mapping[str, Any]) -> tuple[dict[str, type], list[str]]:
    """The class of each group under `values`, and what is wrong with the names that choose them."""
    usual, wrong = Config(), []
    groups: dict[str, type] = {field.name: type(getattr(usual, field.name)) for field in dataclasses.fields(Config)}
    schema = {group: kind for group, kind in groups.items() if dataclasses.is_dataclass(kind)}
    for group, choice in CHOICES.items():
        name = (values.get(group) or {}).get(choice.key)
        if name is not None:
            try:
                schema[group] = choice.module(str(name)).Keys
            except ValueError as error:
                wrong.append(f"{group}.{choice.key}: {error}")
    return schema, wrong


def every_key(schema: Mapping[str, type], root: type = Config) -> list[str]:
    """The names of all keys of `root` under a schema of `classes`, with dots."""
    return list(_leaves(root, schema, ""))


class Place(NamedTuple):
    """Where a key is among the values: its path and type, None if there is no such key."""

    path: list[str]
    kind: Any
    entries: dict[str, Any]
    """What the dictionary that it is, or is an entry of, holds by default."""


def place(key: str, schema: Mapping[str, type], root: type = Config) -> Place:
    """The place of a key of `root`, with dots; what follows a dictionary's key is one name, whatever dots it has."""
    path, kind, parts, entries = list[str](), cast(Any, root), key.split("."), dict[str, Any]()
    for at, part in enumerate(parts):
        if typing.get_origin(kind) is dict:
            return Place([*path, ".".join(parts[at:])], typing.get_args(kind)[1], entries)
        owner, below = kind, types(cast(type, kind)).get(part) if dataclasses.is_dataclass(kind) else None
        kind = schema.get(part, below) if kind is Config else below
        entries = getattr(owner(), part) if typing.get_origin(kind) is dict else {}
        path.append(part)
    return Place(path, kind, entries)


def _leaves(kind: type, schema: Mapping[str, type], prefix: str) -> Iterator[str]:
    hints = types(kind)
    for field in dataclasses.fields(kind):
        below = schema.get(field.name, hints[field.name]) if kind is Config else hints[field.name]
        if dataclasses.is_dataclass(below):
            yield from _leaves(cast(type, below), schema, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def types(kind: type) -> dict[str, Any]:
    """The type of each key of a config dataclass; a key may be called list."""
    return typing.get_type_hints(kind, localns={"list": list})


def unknown(key: str, known: Sequence[str]) -> str:
    """That there is no such key, and those of `known` that were perhaps meant."""
    group, _, name = key.rpartition(".")
    near = difflib.get_close_matches(key, known, 4, 0.5) or [one for one in known if one.endswith(name)]
    beside = [one for one in known if one.rpartition(".")[0] == group]
    return f"there is no key {key!r}; did you mean {', '.join(near or beside or known)}?"


class _Reader:
    """Reads values into dataclasses and keeps what is wrong on the way."""

    def __init__(self, root: type, schema: Mapping[str, type]):
        self.root, self.schema = root, schema
        self.problems: list[str] = []
        self.idle: dict[str, keys.Idle] = {}

    def read(self, kind: type, values: Mapping[str, Any], prefix: str) -> Any:
        """An instance of `kind`, by default where a value is wrong."""
        hints, known, fitting = types(kind), {field.name for field in dataclasses.fields(kind)}, {}
        for name, value in values.items():
            if name not in known:
                self._stranger(prefix, name, value)
                continue
            below = self.schema.get(name, hints[name]) if kind is Config else hints[name]
            if dataclasses.is_dataclass(below) and isinstance(value, Mapping):
                fitting[name] = self.read(cast(type, below), value, f"{prefix}{name}.")
                continue
            try:
                fitting[name] = texts.fit(value, below)
            except ValueError as error:
                self.problems.append(f"{prefix}{name}: {error}")
        return kind(**fitting)

    def _stranger(self, prefix: str, name: str, value: Any) -> None:
        """A key that the chosen class does not have: another choice's, or nobody's."""
        group, key = prefix.rstrip("."), prefix + name
        others = CHOICES[group].classes() if group in CHOICES else {}
        owners = [one for one, kind in others.items() if name in types(kind)]
        below = [f"{key}.{inner}" for inner in value] if isinstance(value, Mapping) else [key]
        if owners:
            choice = f"{group}.{CHOICES[group].key}"
            chosen = getattr(self.schema[group], CHOICES[group].key)
            self.idle |= {one: keys.Idle(f"with {choice}={chosen}", f"set {choice}={owners[0]}") for one in below}
            return
        every = every_key(self.schema, self.root)
        self.problems += [unknown(one, every) for one in below]


def _idle(config: Config, values: Mapping[str, Any]) -> dict[str, keys.Idle]:
    """Of the keys that are set, those that do nothing."""
    silent = dict(contradictions.idle(config))
    for group in dataclasses.fields(config):
        if dataclasses.is_dataclass(chosen := getattr(config, group.name)):
            prefix = f"{group.name}."
            silent |= {prefix + name: why for name, why in keys.idle(chosen, prefix).items()}
    return {name: silent[name] for name in silent if _is_set(values, name)}


def _leave_out(config: Config, silent: Mapping[str, keys.Idle], given: Collection[str]) -> list[str]:
    """Have keys that do nothing by default; a sentence for each that the user gave."""
    for name in silent:
        _reset(config, name)
    return [
        f"{name}: expected it unset {why}, where it does nothing; leave it out, or {remedy}"
        for name, (why, remedy) in silent.items()
        if _given(name, given)
    ]


def _is_set(values: Mapping[str, Any], name: str) -> bool:
    first, _, rest = name.partition(".")
    below = values.get(first)
    if not rest:
        return first in values and below is not None
    return isinstance(below, Mapping) and _is_set(below, rest)


def _given(name: str, given: Iterable[str]) -> bool:
    """Whether the user gave this key, one below it, or one that holds it."""
    return any(one == name or one.startswith(f"{name}.") or name.startswith(f"{one}.") for one in given)


def _reset(config: Config, name: str) -> None:
    """Give a key its default again, if the chosen class has it."""
    *groups, last = name.split(".")
    place: Any = config
    for group in groups:
        place = getattr(place, group, None)
    if isinstance(place, dict):
        place.pop(last, None)
    elif place is not None and hasattr(place, last):
        setattr(place, last, getattr(type(place)(), last))
