"""`--help` of every command: what it does, its keys and presets. Meanings are read where keys are defined."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cluster.config import Config, values
from cluster.config.compose import CONF, groups, kinds, leaves, load, presets, unknown

_FLAGS = ("--help", "-h")
_WIDTH = 110


@dataclass(frozen=True)
class Command:
    """A command as its user sees it."""

    name: str
    text: str
    """What it does, and examples: the docstring of its module."""
    keys: tuple[str, ...] = ()
    """Its most used keys."""
    load: Callable[[Sequence[str]], Any] = load
    schema: type = Config
    kept: str = "what is finished is kept in {root}/{name}; the same command goes on from there"
    """What becomes of the work if it is stopped, with the configuration's fields in braces."""


def asked(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for help instead of work."""
    return any(argument.partition("=")[0] in _FLAGS for argument in arguments)


def answer(command: Command, arguments: Sequence[str]) -> str:
    """The help that `--help`, `--help KEY` or `--help GROUP` asks for, in lines of about 110 characters.

    Raises:
        ValueError: if there is neither such a key nor such a group.
    """
    config = presets({}) if command.schema is Config else command.schema()
    topic = _topic(arguments)
    if topic is None:
        return _about_command(command, config)
    names = groups() if command.schema is Config else {}
    node = _node(config, topic)
    if dataclasses.is_dataclass(node) or topic in names:
        return "\n".join([*_about_group(topic, node), *_about_presets(topic, names.get(topic, ()))])
    if topic not in leaves(config):
        raise ValueError(unknown(topic, config))
    return _about_key(config, topic)


def meaning(schema: type, name: str) -> str:
    """What a field of a dataclass means: the text below it, or that of its class."""
    return _texts(schema).get(name) or _sentence(inspect.getdoc(schema) or "")


def written(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(one)}' for key, one in value.items())}}}"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _topic(arguments: Sequence[str]) -> str | None:
    """What help is asked about: `--help=KEY`, or the argument after `--help`, or none."""
    at = next(index for index, argument in enumerate(arguments) if argument.partition("=")[0] in _FLAGS)
    topic = arguments[at].partition("=")[2] or "".join(arguments[at + 1 : at + 2])
    return topic.partition("=")[0] or None


def _about_command(command: Command, config: Any) -> str:
    lines = [command.text.strip(), "", "Keys used most, with their defaults:"]
    for key in command.keys:
        lines += _key_lines(config, key)
    if command.schema is Config:
        lines += ["", "Presets:"]
        for group, names in groups().items():
            lines += _wrapped(f"  {group}=", ", ".join(names))
        lines += ["", "--help KEY tells of any key, --help GROUP of a group's keys and presets:"]
        lines += _wrapped("  ", ", ".join(sorted({*groups(), *_subgroups(config)})))
        lines.append(f"What `jobs.{command.name}` with these arguments would do: python -m jobs.config KEY=VALUE ...")
    else:
        lines += ["", "--help KEY tells of any key:", *_wrapped("  ", ", ".join(leaves(config)))]
    return "\n".join(lines)


def _about_group(group: str, node: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(node):
        yield from _wrapped("", f"{group}: {' '.join((inspect.getdoc(type(node)) or '').split())}")
        yield ""
        for name in kinds(node):
            if not dataclasses.is_dataclass(getattr(node, name)):
                yield from _key_lines(node, name, f"{group}.")
            else:
                yield f"  {group}.{name}: see --help {group}.{name}"


def _about_presets(group: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield from ["", f"Presets, as in {group}={names[0]}:"]
    for name in names:
        yield f"  {name}"
        yield from (f"      {line}" for line in _header(CONF / group / f"{name}.yaml"))


def _about_key(config: Any, key: str) -> str:
    owner, name = _owner(config, key)
    kind = values.describe(kinds(owner)[name])
    value = getattr(owner, name)
    lines = [f"{key}: {kind}; {'must be given' if value == MISSING else f'default {written(value)}'}"]
    return "\n".join([*lines, *_wrapped("  ", meaning(type(owner), name))])


def _key_lines(config: Any, key: str, prefix: str = "") -> list[str]:
    """`key=default`, and what the key means if it says more than its name."""
    owner, name = _owner(config, key)
    value = getattr(owner, name)
    default = "..." if value == MISSING else written(value)
    schema: type = type(owner)
    text = _texts(schema).get(name)
    return [f"  {prefix}{key}={default}", *(_wrapped("      ", text) if text else [])]


def _owner(config: Any, key: str) -> tuple[Any, str]:
    path, _, name = key.rpartition(".")
    return _node(config, path) if path else config, name


def _node(config: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    return functools.reduce(lambda node, part: getattr(node, part, None), key.split("."), config)


def _subgroups(node: Any, prefix: str = "") -> Iterator[str]:
    for name in kinds(node):
        if dataclasses.is_dataclass(getattr(node, name)):
            yield f"{prefix}{name}"
            yield from _subgroups(getattr(node, name), f"{prefix}{name}.")


def _wrapped(indent: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)) or [indent.rstrip()]


def _sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def _header(preset: Path) -> Iterator[str]:
    """The comment at the head of a preset: what it is, its command, cost and what to expect."""
    lines = preset.read_text().splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return (line[2:] for line in comment if not line.startswith("# @"))


@functools.cache
def _texts(schema: type) -> dict[str, str]:
    """The text below each field of a dataclass, those of its bases included."""
    texts: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if dataclasses.is_dataclass(owner):
            texts |= _texts_of(owner.__module__).get(owner.__name__, {})
    return texts


@functools.cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    source = sys.modules[module].__file__
    assert source is not None, module
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    return {node.name: dict(_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(owner: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in itertools.pairwise(owner.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())
