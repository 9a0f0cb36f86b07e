"""`--help` of every command: what it does, its keys and presets. Meanings are read where keys are defined."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import shlex
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cluster.config import Config, build, values
from cluster.config.compose import CONF, Arguments, groups, load, load_keys, presets

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
    schema: type = Config
    """What it takes: a run's configuration with its presets, or keys of its own."""
    kept: str = "what is finished is kept in {root}/{name}; the same command goes on from there"
    """What becomes of the work if it is stopped, with the configuration's fields in braces."""
    reader: Callable[[Sequence[str]], Any] | None = None
    """What reads its arguments, where `schema` does not say it all."""

    def load(self, arguments: Sequence[str]) -> Any:
        """The configuration that the arguments give.

        Raises:
            ValueError: naming every mistake.
        """
        if self.reader is not None:
            return self.reader(arguments)
        return load(arguments) if self.schema is Config else load_keys(self.schema, arguments)


@dataclass(frozen=True)
class _Key:
    """A key: its dotted name, the dataclass that defines it, and its value by default."""

    name: str
    owner: type
    default: Any

    @property
    def field(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def given(self) -> str:
        """The key with its default, as on the command line."""
        return f"{self.name}={'...' if self.default == MISSING else written(self.default)}"

    @property
    def text(self) -> str:
        """What is written below its field."""
        return _texts(self.owner).get(self.field, "")

    def facts(self) -> Iterator[str]:
        """Its type or what it may be, and when it acts."""
        (field,) = (one for one in dataclasses.fields(self.owner) if one.name == self.field)
        kind, rule = build.types(self.owner)[self.field], field.metadata.get("rule")
        if rule is None:
            yield values.describe(kind)
        else:
            yield f"a list [a,b], each {rule.words()}" if typing.get_origin(kind) is list else rule.words()
        group = self.name.rpartition(".")[0]
        for name, wanted in field.metadata.get("when", {}).items():
            least = " or ".join(map(written, wanted)) if isinstance(wanted, tuple) else "set" if wanted else "unset"
            yield f"acts with {group}.{name} {least}"


def asked(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for help instead of work."""
    return any(argument.partition("=")[0] in _FLAGS for argument in arguments)


def answer(command: Command, arguments: Sequence[str]) -> str:
    """The help that `--help`, `--help KEY` or `--help GROUP` asks for, under the presets that are given beside it.

    Its examples can be typed as they stand.

    Raises:
        ValueError: if there is neither such a key nor such a group.
    """
    return _answer(command, arguments).replace("python -m jobs.", f"{python()} -m jobs.")


def python() -> str:
    """The Python that runs this, as a shell in the current folder calls it: `.venv/bin/python` in a checkout."""
    own = Path(sys.executable)
    if own.is_relative_to(Path.cwd()):
        return shlex.quote(str(own.relative_to(Path.cwd())))
    return "python" if shutil.which("python") == str(own) else shlex.quote(str(own))


def _answer(command: Command, arguments: Sequence[str]) -> str:
    topic, others = _topic(arguments)
    names = groups() if command.schema is Config else {}
    tree = presets(Arguments.read(others, names).choices) if names else {}
    schema = build.classes(tree)[0] if names else {}
    config: Any = build.simple(command.schema, tree, schema)[0]
    known = {key.name: key for key in [*(_others() if names else []), *_keys(config)]}
    if topic is None:
        return "\n".join(_about_command(command, config, known))
    node = functools.reduce(lambda above, part: getattr(above, part, None), topic.split("."), config)
    if topic in known:
        return "\n".join(_about_key(known[topic]))
    if dataclasses.is_dataclass(node) or topic in names:
        return "\n".join([*_about_group(topic, node, known), *_about_presets(topic, names.get(topic, ()))])
    raise ValueError(build.unknown(topic, [*known, *names]))


def written(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(one)}' for key, one in value.items())}}}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _topic(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """What help is asked about, `--help=KEY` or the argument after `--help`, and the arguments beside it."""
    at = next(index for index, argument in enumerate(arguments) if argument.partition("=")[0] in _FLAGS)
    inside = arguments[at].partition("=")[2]
    after = [] if inside else arguments[at + 1 : at + 2]
    others = [*arguments[:at], *arguments[at + 1 + len(after) :]]
    return (inside or "".join(after)).partition("=")[0] or None, others


def _keys(node: Any, prefix: str = "") -> Iterator[_Key]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _keys(value, f"{prefix}{field.name}.")
        else:
            yield _Key(f"{prefix}{field.name}", type(node), value)


def _others() -> Iterator[_Key]:
    """The keys of everything that could be chosen: all sources, pairings and data sets."""
    for group, choice in build.CHOICES.items():
        for kind in choice.classes().values():
            yield from _keys(kind(), f"{group}.")


def _about_command(command: Command, config: Any, known: dict[str, _Key]) -> Iterator[str]:
    yield from [command.text.strip(), "", "Keys used most, with their defaults:"]
    for name in command.keys:
        yield from _lines(known[name])
    if command.schema is not Config:
        yield from ["", "--help KEY tells of any key:", *_wrapped("  ", ", ".join(known))]
        return
    yield from ["", "Presets:"]
    for group, names in groups().items():
        yield from _wrapped(f"  {group}=", ", ".join(names))
    yield from ["", "--help KEY tells of any key, --help GROUP of a group's keys and presets:"]
    yield from _wrapped("  ", ", ".join(sorted({*groups(), *_groups(config)})))
    yield "What each stage would do with the same arguments: python -m jobs.config KEY=VALUE ..."


def _about_group(group: str, node: Any, known: dict[str, _Key]) -> Iterator[str]:
    if not dataclasses.is_dataclass(node):
        return
    yield from _wrapped("", f"{group}: {' '.join((inspect.getdoc(type(node)) or '').split())}")
    yield ""
    for field in dataclasses.fields(node):
        name = f"{group}.{field.name}"
        yield from _lines(known[name]) if name in known else [f"  {name}: see --help {name}"]


def _about_presets(group: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield from ["", f"Presets, as in {group}={names[0]}:"]
    for name in names:
        yield f"  {name}"
        yield from (f"      {line}" for line in _header(CONF / group / f"{name}.yaml"))


def _about_key(key: _Key) -> Iterator[str]:
    yield key.name if key.default == MISSING else f"{key.given} by default"
    yield from _wrapped("  ", key.text or _plain(inspect.getdoc(key.owner) or ""))
    yield from _wrapped("  ", "; ".join(key.facts()))


def _lines(key: _Key) -> Iterator[str]:
    """A key with its default and meaning."""
    yield f"  {key.given}"
    if key.text:
        yield from _wrapped("      ", key.text)


def _groups(node: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from [f"{prefix}{field.name}", *_groups(value, f"{prefix}{field.name}.")]


def _wrapped(indent: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)) or [indent.rstrip()]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _header(preset: Path) -> Iterable[str]:
    """The comment at the head of a preset: what it is, its command, cost and what to expect."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), preset.read_text(encoding="utf-8").splitlines())
    return (line[2:] for line in lines if not line.startswith("# @"))


@functools.cache
def _texts(owner: type) -> dict[str, str]:
    """The text below each field of a dataclass; a field that a base has too may leave it to the base."""
    texts: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        if dataclasses.is_dataclass(one):
            texts |= _texts_of(one.__module__).get(one.__name__, {})
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
                yield name, _plain(text)
