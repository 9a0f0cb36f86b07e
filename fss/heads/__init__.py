"""Heads: what turns features of a query and of masked supports into a segmentation of the query.

A head (`fss.heads.parts.head.Head`) is a module `forward(query, support, masks) -> logits`, knows no loss, no device
and no backbone, and reads the number of shots from the shapes:

* query: `Features`, levels (B, C, h, w);  support: `Features`, levels (B, K, C, h, w);
* masks: (B, K, 2, h, w) float32, each cell's shares of background and of foreground in [0, 1], void in neither;
  a support may show no foreground (a distractor), then it says what is background and nothing of the foreground;
* logits: (B, 2, h, w), background first; a head that decodes may give a finer grid.

A new head is a file here and a preset in `conf/model`. The file's name is the head's; it holds `HEAD`, its class, and
`Options`, its keys. What several heads share is in `parts`. See `docs/extending.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fss import choices
from fss.keys import Idle, idle

if TYPE_CHECKING:  # torch takes seconds to import, and listing names does not need it
    from fss.heads.parts.head import Head
    from fss.heads.parts.options import HeadOptions


def names() -> tuple[str, ...]:
    """The heads there are, sorted."""
    return choices.names(__name__)


def kind(name: str) -> type[Head]:
    """The class of head `name`; ValueError for an unknown one."""
    try:
        return choices.load(__name__, name).HEAD
    except ValueError as error:
        raise ValueError(f"model: {error}") from error


def training_free() -> dict[str, str]:
    """Heads that need no training, and what tables call them: the floors of a backbone."""
    return {name: kind(name).title or name for name in names() if not kind(name).trained}


def anchors() -> tuple[str, ...]:
    """Published heads that need no training: what a trained one should be held against."""
    from fss.heads.parts.anchor import Anchor

    return tuple(name for name in names() if issubclass(kind(name), Anchor))


def readouts() -> tuple[str, ...]:
    """Heads that a learned one can be added to, see `fss.heads.parts.residual`."""
    return tuple(name for name in names() if kind(name).is_readout)


def looking_up() -> tuple[str, ...]:
    """Heads that can look up regions of a corpus, see `fss.heads.parts.capabilities`."""
    from fss.heads.parts.capabilities import Recalls

    return tuple(name for name in names() if issubclass(kind(name), Recalls))


def read_options(name: str, given: Mapping[str, Any]) -> tuple[HeadOptions, list[str]]:
    """The options of head `name`, absent ones filled in, and all that is wrong with those given; see `options.read`."""
    from fss.heads.parts import options

    return options.read(choices.load(__name__, name).Options, given)


def idle_options(name: str, given: Mapping[str, Any]) -> dict[str, Idle]:
    """Of the keys that are `given`, those that do nothing beside the others."""
    options, _ = read_options(name, given)
    return {key: why for key, why in idle(options, "model.options.").items() if key in given}


def complete(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of head `name`, absent ones filled in, as JSON has them: what an exported model keeps."""
    options, _ = read_options(name, given)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(options).items()}


def build(name: str, options: Mapping[str, Any], channels: Mapping[str, int], *, corners: bool, seed: int = 0) -> Head:
    """Head `name`, its weights drawn from `seed`.

    Args:
        name: one of `names`.
        options: keys of the head's `Options`.
        channels: of the backbone, by level.
        corners: the geometry of the backbone's cells, see `fss.grid`.
        seed: of the weights; no global generator moves.

    Raises:
        ValueError: for an unknown name, with all that is wrong with the options, or for a residual of a head that
            cannot have one.
    """
    import torch

    head: Any = kind(name)
    chosen, wrong = read_options(name, options)
    if wrong:
        raise ValueError(f"model {name} cannot have these options:\n  " + "\n  ".join(wrong))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: fork_rng keeps no other
        made: Head = head(channels, chosen)
        made.corners = corners
        return _added(made, chosen, channels)


def _added(head: Head, options: HeadOptions, channels: Mapping[str, int]) -> Head:
    """`head` as it is, or, where its options name a residual, added to that read-out."""
    from fss.heads.parts.options import LearnedOptions
    from fss.heads.parts.residual import Residual

    if not isinstance(options, LearnedOptions) or options.residual == "none":
        return head
    beside = kind(options.residual).beside_learned
    readout = build(options.residual, beside, channels, corners=head.corners)
    lent = head.lends is not None and isinstance(readout, kind(head.lends))
    return Residual(head, readout, lent=lent, by_shots=options.by_shots, otsu=options.otsu, own=options.own)
