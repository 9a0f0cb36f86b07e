"""Pairing `mask_split`: one half of a region supports the other half, in two views of one image.

Source: MaskSplit (Amac et al., WACV 2023), section 3.2 and its released code, whose defaults are ours. Where this
departs:

* the slope is a share of the side instead of 40 of 400 pixels, so that images of all sizes are split alike;
* both halves must be large enough; the released code tests the support's alone, as its sum of the query's counts void;
* pixels on the line, which belong to neither half, are void in the query as the support's half is (released:
  background);
* the query's half may be void in the support too, for heads that look at a support's background.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from fss import rng
from fss.imaging.images import VOID
from fss.keys import SHARE_OR_NONE, key, one_of
from fss.tasks.pairing.parts import pairs
from fss.tasks.pairing.parts.rules import AcrossImages, Rules

#: How a region is split: by an upright line, a lying one, or either, as likely.
SPLITS = ("vertical", "horizontal", "mixed")
#: Lines that are drawn before a region is given up.
_TRIES = 8


@dataclasses.dataclass
class Split:
    """How regions are split in two."""

    kind: str = key("vertical", one_of(*SPLITS))
    """`vertical` = by an upright line that halves the region (Vsplit), `horizontal` = a lying one, `mixed` = either."""
    slope: float = key(0.1, SHARE_OR_NONE)
    """Largest shift of the line's two ends in opposite directions, share of the side they lie on; 0 = no slope."""
    alternate: bool = True
    """Whether either half may be the support's; otherwise always the right or the lower one."""
    probability: float = key(1.0, SHARE_OR_NONE)
    """Share of the tasks that are split; the others see the whole region in both views."""
    min_area: float = key(0.0032, SHARE_OR_NONE)
    """Smallest share of the image that each half must cover (2 x 16 x 16 of 400 x 400 pixels)."""
    ignore_support: bool = True
    """Whether what is not the query's half of the region is void in the query's mask, not background."""
    ignore_query: bool = False
    """The same of the support's mask."""


@dataclasses.dataclass
class Keys(Rules):
    """Pairing `mask_split`: the two halves of a region."""

    pairing: str = "mask_split"
    split: Split = key(Split)
    """How regions are split."""


@dataclasses.dataclass(frozen=True)
class Halves(pairs.Pairing):
    """A region that supports itself, split by `rules`; `seed` decides on its line."""

    seed: int = 0
    rules: Split = dataclasses.field(default_factory=Split)


def draw(table: pairs.RegionTable, keys: Keys, *, seed: int, queries: np.ndarray | None = None) -> list[pairs.Pairing]:
    """A group's tasks in the order of `pairs.Eligible.slots`, each of one usable region; a slot's name picks a line.

    Args:
        table: every region of the group.
        keys: see `Keys`.
        seed: of all that is drawn.
        queries: (R,) bool, rows that may be taken; none = all.
    """
    slots = _group(table, keys).slots(seed, queries)
    return [Halves(row, (row,) * keys.shots, (), rng.mix(seed, "split", *name), keys.split) for name, row in slots]


def count(table: pairs.RegionTable, keys: Keys, queries: np.ndarray) -> int:
    """How many tasks `draw` makes among `queries` (R,) bool, whatever the seed."""
    return _group(table, keys).count(queries)


def _group(table: pairs.RegionTable, keys: Keys) -> pairs.Eligible:
    """Regions that all support themselves."""
    shared = {field.name: getattr(keys, field.name) for field in dataclasses.fields(Rules)}
    return pairs.Eligible(table, AcrossImages(**shared, same_image=1.0))


class HalfMasks(NamedTuple):
    """Those of one task, (H, W) uint8 in {0, 1, 255}."""

    query: np.ndarray
    support: np.ndarray


def split(region: np.ndarray, rules: Split, seed: int) -> HalfMasks | None:
    """The masks of a task on an (H, W) bool region, a pure function of the seed; before any view is drawn.

    A line whose halves are too small is drawn again, a few times; None if none is found.
    """
    generator = rng.numpy_rng(seed, "lines")
    if generator.random() >= rules.probability:
        whole = region.astype(np.uint8)
        return HalfMasks(whole, whole) if region.mean() >= rules.min_area else None
    for _ in range(_TRIES):
        first, second = halves(region, *_line(region, rules, generator))
        support, query = (first, second) if rules.alternate and generator.random() < 0.5 else (second, first)
        if min(support.mean(), query.mean()) >= rules.min_area:
            return HalfMasks(_mask(query, region, rules.ignore_support), _mask(support, region, rules.ignore_query))
    return None


def _line(region: np.ndarray, rules: Split, generator: np.random.Generator) -> tuple[bool, int]:
    """Whether the line is upright, and its shift in pixels."""
    upright = rules.kind == "vertical" or (rules.kind == "mixed" and bool(generator.random() < 0.5))
    reach = round(rules.slope * region.shape[1 if upright else 0])
    return upright, int(generator.integers(-reach, reach)) if reach else 0


def halves(region: np.ndarray, upright: bool, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of an (H, W) bool region left and right of a line, or above and below it: (H, W) bool each.

    The line passes the column (row) that has most nearly as many of the region's pixels before it as behind it (the
    first of equals), `shift` pixels farther right (down) at its upper (left) end and as much less at the other. Pixels
    whose centres lie on it belong to neither half.
    """
    if not upright:
        first, second = halves(region.T, True, shift)
        return first.T, second.T
    height, width = region.shape
    counts = region.sum(axis=0)
    middle = int(np.abs(2 * counts.cumsum() - counts - counts.sum()).argmin())
    rows, columns = np.ogrid[:height, :width]
    span = max(height - 1, 1)
    beyond = (columns - middle) * span - shift * (span - 2 * rows)  # integers: which pixels are on the line is exact
    return region & (beyond < 0), region & (beyond > 0)


def _mask(half: np.ndarray, region: np.ndarray, ignore: bool) -> np.ndarray:
    return np.where(region & ~half, VOID if ignore else 0, half).astype(np.uint8)
