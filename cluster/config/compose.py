"""The command line: `key=value` over the presets of `conf/`, made into a checked configuration, or all its mistakes.

Hydra only puts presets together. What a user gives as a value is read by the type of its key (`values`) and set, so no
grammar of overrides ever sees it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import MISSING

from cluster.config import Config, check, values

CONF = Path(__file__).resolve().parents[2] / "conf"

T = TypeVar("T")


def load(arguments: Sequence[str], further: Callable[[Config], list[str]] | None = None) -> Config:
    """The configuration of a run: `conf/config.yaml`, the presets and the values that `arguments` name, checked.

    `further` says what else is wrong for one command.

    Raises:
        ValueError: naming every mistake: unknown keys, wrong types, values and presets, contradictions.
    """
    given = Given.read(arguments, choosable=groups())
    config = presets(given.choices)
    return _checked(config, given, lambda: [*check.problems(config), *(further(config) if further else [])])


def load_keys(schema: type[T], arguments: Sequence[str]) -> T:
    """The configuration of a command that has keys of its own and no presets; it may check itself by `problems()`.

    Raises:
        ValueError: naming every mistake, keys without a value among them.
    """
    config = schema()
    return _checked(config, Given.read(arguments), getattr(config, "problems", list))


def groups() -> dict[str, tuple[str, ...]]:
    """The presets of each folder of `conf/`, by its name."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir())
    return {folder.name: tuple(sorted(path.stem for path in folder.glob("*.yaml"))) for folder in folders}


@dataclass
class Given:
    """What was given on the command line: presets by their group, values by their key as text, and its mistakes."""

    choices: dict[str, str] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    mistakes: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, arguments: Sequence[str], choosable: Mapping[str, Sequence[str]] | None = None) -> Given:
        """Take `key=value` arguments apart; the last of several values of a key counts."""
        given = cls()
        for argument in arguments:
            key, equals, text = argument.partition("=")
            key = key.lstrip("+")  # Hydra's mark for a new key: here every key may be set
            if not equals or not key or key[0] in "~-":
                given.mistakes.append(_no_assignment(argument))
            elif key in (choosable or {}):
                given._choose(key, text, (choosable or {})[key])
            else:
                given.texts[key] = text
        return given

    def _choose(self, group: str, name: str, names: Sequence[str]) -> None:
        if name in names:
            self.choices[group] = name
        elif group == "model" and ("/" in name or Path(name).exists()):
            self.choices[group] = "trained"
            self.texts["model.path"] = name
        elif group != "experiment" or name not in ("", "null"):
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.mistakes.append(f"{group}: expected one of {', '.join(names)}, got {name!r}{hint}")


def presets(choices: Mapping[str, str]) -> Config:
    """The configuration that presets make, by their group, over `conf/config.yaml`.

    Raises:
        ValueError: for a preset that has a wrong key or value.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name="config_schema", node=Config)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            composed = compose("config", overrides=[f"{group}={name}" for group, name in choices.items()])
        return cast(Config, OmegaConf.to_object(composed))
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        named = ", ".join(f"{group}={name}" for group, name in choices.items()) or "config.yaml"
        raise ValueError(f"a preset of conf/ is wrong ({named}): {str(cause).splitlines()[0]}") from error


def set_value(config: Any, key: str, text: str) -> None:
    """Set the dotted `key` of a dataclass to what `text` means; entries of a dictionary may be set one by one.

    Raises:
        ValueError: if there is no such key, or the text means no value of its type.
    """
    node, (*path, last) = config, key.split(".")
    for depth, part in enumerate(path):
        value = getattr(node, part) if part in kinds(node) else None
        if isinstance(value, dict):
            entry = ".".join([*path[depth + 1 :], last])
            value[entry] = _read(key, text, typing.get_args(kinds(node)[part])[1])
            return
        if not dataclasses.is_dataclass(value):
            raise ValueError(unknown(key, config))
        node = value
    if last not in kinds(node):
        raise ValueError(unknown(key, config))
    value, kind = getattr(node, last), kinds(node)[last]
    if dataclasses.is_dataclass(value):
        raise ValueError(f"{key}: expected one of its keys, as in {key}.{next(iter(kinds(value)))}=, got {text!r}")
    found = _read(key, text, kind)
    setattr(node, last, value | found if isinstance(value, dict) and isinstance(found, dict) else found)


def kinds(node: Any) -> dict[str, Any]:
    """The type of each field of a dataclass, or of one of its instances."""
    schema = node if isinstance(node, type) else type(node)
    return _hints(schema) if dataclasses.is_dataclass(schema) else {}


@functools.cache
def _hints(schema: type) -> dict[str, Any]:
    hints = typing.get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys of a dataclass's instance."""
    for name in kinds(node):
        value = getattr(node, name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def unknown(key: str, config: Any) -> str:
    """That there is no such key, and those that were perhaps meant."""
    known = list(leaves(config))
    last, group = key.rpartition(".")[2], key.rpartition(".")[0]
    near = difflib.get_close_matches(key, known, 4, 0.5) or [name for name in known if name.endswith(last)]
    beside = [name for name in known if name.rpartition(".")[0] == group]
    return f"there is no key {key!r}; did you mean {', '.join(near or beside or known[:8])}?"


def _no_assignment(argument: str) -> str:
    if argument.startswith("~"):
        return f"expected key=value, got {argument!r}; keys are not removed, set {argument.strip('~')}=null"
    if argument.startswith("-"):
        return f"expected key=value or --help, got {argument!r}; write {argument.lstrip('-')} without dashes"
    return f"expected key=value arguments, got {argument!r}"


def _read(key: str, text: str, kind: Any) -> Any:
    try:
        return values.read(text, kind)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _checked(config: T, given: Given, problems: Callable[[], list[str]]) -> T:
    """Set what was given and refuse all mistakes at once.

    Beside mistakes of form, what the checks find is told of keys that were given and could be read: the rest may only
    follow from a mistake.
    """
    mistakes, wrong = list(given.mistakes), set()
    for key, text in given.texts.items():
        try:
            set_value(config, key, text)
        except ValueError as error:
            mistakes.append(str(error))
            wrong.add(key)
    missing = sorted(key for key in leaves(config) if _value(config, key) == MISSING and key not in wrong)
    if missing:
        mistakes.append(f"expected a value for {', '.join(missing)}: give it as key=value")
    sound = [key for key in given.texts if key not in wrong]
    mistakes += [one for one in problems() if not mistakes or _about(one, sound)]
    if len(mistakes) > 1:
        raise ValueError("the configuration cannot work:\n  " + "\n  ".join(mistakes))
    if mistakes:
        raise ValueError(mistakes[0])
    return config


def _about(problem: str, keys: Sequence[str]) -> bool:
    """Whether a problem, which begins with the key or the group that it is about, is about one of `keys`."""
    about = re.split(r"[:\[ ]", problem, maxsplit=1)[0]
    return any(key == about or key.startswith(f"{about}.") for key in keys)


def _value(config: Any, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)
