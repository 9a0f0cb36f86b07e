"""Keys of heads: each head's module has its own as a dataclass, `Options`, that says what its values may be.

Fields are of str, bool, int, float or tuples of one of them, all with defaults and, where that says something, a rule
of `fss.keys` beside it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from fss import keys
from fss.keys import Rule, key, one_of, ranged

#: Levels of every backbone.
LEVELS = ("low", "mid", "high")
A_LEVEL = one_of(*LEVELS)


def multiple_of(step: int) -> Rule:
    """A positive multiple of `step`."""
    return ranged(f"a multiple of {step}", lambda value: value > 0 and value % step == 0)


def divided(dim: int, heads: int) -> list[str]:
    """What is wrong with a width that attention heads divide among them."""
    return [] if heads < 1 or dim % heads == 0 else [f"dim: expected a multiple of heads={heads}, got {dim}"]


def _residuals() -> tuple[str, ...]:
    from fss import heads

    return ("none", *heads.readouts())


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Base of all `Options`; a method `problems` says what no rule for one value can say."""

    @classmethod
    def absent(cls, given: Mapping[str, Any]) -> Self:
        """What holds for keys that are not `given`; by default the fields' own defaults."""
        return cls()

    @property
    def looks_up_regions(self) -> bool:
        """Whether it needs an index of regions of the corpus (`fss.heads.parts.capabilities.Recalls`)."""
        return False


@dataclass(frozen=True, kw_only=True)
class LearnedOptions(HeadOptions):
    """Base of the options of heads that learn."""

    residual: str = key("none", one_of(names=_residuals))
    """A read-out that the head is added to (`fss.heads.parts.residual`), or none."""
    by_shots: bool = key(False, when={"residual": True})
    """Whether what the head adds to a read-out of K supports counts 1/K in training and 1/(K + 1) in answers: for
    read-outs that are good by themselves."""
    otsu: float = key(0.0, keys.SHARE_OR_NONE, when={"residual": True})
    """Share of the way from zero to where the query's own logits part (`fss.heads.parts.threshold`), over the number of
    supports."""
    own: float = key(0.0, keys.FROM_ZERO, when={"residual": True})
    """Weight of what the read-out says of the query with the answered query as its support, over the squared number of
    supports; in answers alone."""

    @property
    def learns_single_images(self) -> bool:
        """Whether it learns something of single unlabelled images beside the tasks (`train.unlabelled`)."""
        return False

    @property
    def keeps_features(self) -> bool:
        """Whether it keeps features of training images, so that the backbone must not change (`train.tune`)."""
        from fss import heads

        return self.residual in heads.looking_up()


Kind = TypeVar("Kind", bound=HeadOptions)


def read(kind: type[Kind], given: Mapping[str, Any]) -> tuple[Kind, list[str]]:
    """Options of a `kind` with `given` values in place of their own, and all that is wrong with what was given.

    Where a value is of the wrong type, it is the default.
    """
    names, types = tuple(field.name for field in dataclasses.fields(kind)), typing.get_type_hints(kind)
    wrong = [_unknown(name, names) for name in given if name not in names]
    values: dict[str, Any] = {}
    for name in (name for name in names if name in given):
        try:
            values[name] = _converted(given[name], types[name])
        except TypeError:
            wrong.append(f"{name}: expected {_called(types[name])}, got {given[name]!r}")
    chosen = dataclasses.replace(kind.absent(values), **values)
    return chosen, [f"model.options.{problem}" for problem in (*wrong, *keys.problems(chosen))]


def _unknown(name: str, known: tuple[str, ...]) -> str:
    return f"{name}: expected one of {', '.join(known)}, got an unknown key{keys.nearest(name, known)}"


def _converted(value: Any, kind: Any) -> Any:
    """`value` as a field of type `kind` has it: lists become tuples, whole numbers floats. TypeError for others."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise TypeError
        return tuple(_converted(each, typing.get_args(kind)[0]) for each in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _called(kind: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(kind) or f"a list of one or more, each {words[typing.get_args(kind)[0]]}"
