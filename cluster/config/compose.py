"""The command line: `key=value` over the presets of `conf/`, made into a checked configuration, or all its mistakes.

Hydra only puts presets together. What a user gives as a value is read by the type of its key (`values`) and set, so no
grammar of overrides ever sees it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import MISSING

from cluster.config import Config, build, values
from fss.keys import missing

CONF = Path(__file__).resolve().parents[2] / "conf"

T = TypeVar("T")


def load(
    arguments: Sequence[str], further: Callable[[Config], list[str]] | None = None, thorough: bool = True
) -> Config:
    """The configuration of a run: `conf/config.yaml`, the presets and the values that `arguments` name, checked.

    `further` says what else is wrong for one command. One that does nothing with a head need not be `thorough`: it is
    spared the seconds that looking into the head's options takes.

    Raises:
        ValueError: naming every mistake: unknown keys, wrong types, values and presets, contradictions.
    """
    given = Arguments.read(arguments, choosable=groups())
    tree = presets(given.choices)
    naming = {f"{group}.{choice.key}" for group, choice in build.CHOICES.items()}
    given.put(tree, Config, {}, naming.__contains__)  # the names say which other keys there are
    given.put(tree, Config, build.classes(tree)[0], lambda key: key not in naming)
    config, wrong = build.examined(tree, given.texts, further, thorough)
    given.refuse(wrong, config if config.cluster.joined() == "local" else None)
    return config


def load_keys(schema: type[T], arguments: Sequence[str]) -> T:
    """The configuration of a command that has keys of its own and no presets.

    Raises:
        ValueError: naming every mistake, keys without a value among them.
    """
    given, tree = Arguments.read(arguments), dict[str, Any]()
    given.put(tree, schema, {})
    config, wrong = build.simple(schema, tree)
    unset = sorted(key for key, value in vars(config).items() if value == MISSING and key not in given.texts)
    if unset:
        given.mistakes.append(f"expected a value for {', '.join(unset)}: give it as key=value")
    given.refuse(wrong, config)
    return config


def groups() -> dict[str, tuple[str, ...]]:
    """The presets of each folder of `conf/`, by its name."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir())
    return {folder.name: tuple(sorted(path.stem for path in folder.glob("*.yaml"))) for folder in folders}


@dataclass
class Arguments:
    """What was given on the command line: presets by their group, values by their key as text, and its mistakes."""

    choices: dict[str, str] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    mistakes: list[str] = dataclasses.field(default_factory=list)
    unread: set[str] = dataclasses.field(default_factory=set)
    """Keys whose text means no value of their type."""

    @classmethod
    def read(cls, arguments: Sequence[str], choosable: Mapping[str, Sequence[str]] | None = None) -> Arguments:
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
        elif group == "backbone" and name.startswith("timm/"):
            self.choices[group] = "timm"
            self.texts["backbone.name"] = name
        elif group != "experiment" or name not in ("", "null"):
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.mistakes.append(f"{group}: expected one of {', '.join(names)}, got {name!r}{hint}")

    def put(
        self, tree: dict[str, Any], root: type, schema: Mapping[str, type], wanted: Callable[[str], bool] | None = None
    ) -> None:
        """Put the `wanted` values, read by the types of their keys, into a tree of values; what is no key as text."""
        for key, text in self.texts.items():
            if wanted is None or wanted(key):
                place = build.place(key, schema, root)
                try:
                    _put(tree, place, _read(text, place.kind))
                except ValueError as error:
                    self.mistakes.append(f"{key}: {error}")
                    self.unread.add(key)

    def refuse(self, wrong: Sequence[str], config: Any) -> None:
        """Refuse all mistakes at once, `wrong` being those that values have.

        Beside mistakes of form these are told only of keys that were given and could be read: others may only follow
        from a mistake. What is inside of files is looked at later, with libraries that take seconds to import; so that
        a user need not come twice, paths that are not there are told beside other mistakes, those of `config` if its
        files are on this machine.

        Raises:
            ValueError: if there are any.
        """
        if self.mistakes or wrong:
            wrong = [*wrong, *(missing(config) if config else [])]
        sound = [key for key in self.texts if key not in self.unread]
        mistakes = [*self.mistakes, *(one for one in wrong if not self.mistakes or _about(one, sound))]
        if len(mistakes) > 1:
            raise ValueError("the configuration cannot work:\n  " + "\n  ".join(mistakes))
        if mistakes:
            raise ValueError(mistakes[0])


def presets(choices: Mapping[str, str]) -> dict[str, Any]:
    """The values that presets set, by their group, over `conf/config.yaml`.

    Raises:
        ValueError: for a preset that cannot be read.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            composed = compose("config", overrides=[f"{group}={name}" for group, name in choices.items()])
        return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        named = ", ".join(f"{group}={name}" for group, name in choices.items()) or "config.yaml"
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise ValueError(f"expected presets that can be read, got {named}: {cause}") from error


def _read(text: str, kind: Any) -> Any:
    if kind is None:
        return text
    if dataclasses.is_dataclass(kind):
        first = dataclasses.fields(kind)[0].name
        raise ValueError(f"expected one of its keys and a value, such as {first}, got {text!r}")
    return values.read(text, kind)


def _put(tree: dict[str, Any], place: build.Place, value: Any) -> None:
    """Set what lies at `place`; entries of a dictionary are added to those that are there, or that are by default."""
    *groups, last = place.path
    for group in groups:
        if not isinstance(tree.get(group), dict):
            tree[group] = {}
        tree = tree[group]
    if isinstance(value, dict):
        tree[last] = (tree.get(last) or place.entries) | value
    else:
        tree |= ({} if tree else place.entries) | {last: value}


def _no_assignment(argument: str) -> str:
    if argument.startswith("~"):
        return f"expected key=value, got {argument!r}; keys are not removed, set {argument.strip('~')}=null"
    if argument.startswith("-"):
        return f"expected key=value or --help, got {argument!r}; write {argument.lstrip('-')} without dashes"
    return f"expected key=value arguments, got {argument!r}"


def _about(problem: str, keys: Sequence[str]) -> bool:
    """Whether a problem, which begins with its key or group, is about one of `keys`, or says that there is no key."""
    about = re.split(r"[:\[ ]", problem, maxsplit=1)[0]
    return problem.startswith("there is no key") or any(key == about or key.startswith(f"{about}.") for key in keys)
