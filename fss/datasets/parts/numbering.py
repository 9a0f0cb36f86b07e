"""How the masks of a user's own set are read: by numbers, by brightness, or by colours. One rule for all of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fss.datasets.parts import files
from fss.imaging import masks
from fss.imaging.masks import BLACK, VOID, Colour, Drawn

logger = logging.getLogger(__name__)

Read = Callable[[Path], np.ndarray]
#: Masks that are looked at before a set is used, evenly over all of them.
_SAMPLE = 32


def reader(paths: Sequence[Path], names: tuple[str, ...]) -> Read:
    """What makes (H, W) indices of the masks at `paths`, whose classes 1, 2, ... are `names`, or unknown without any.

    A set of one class may be black and white in any encoding of `masks.numbers`: where no mask holds 1, 255 is the
    class and not void, and the log says so. A set of several classes holds indices, in palettes of one order.

    Raises:
        ValueError: if masks of several classes hold nothing but 0 and 255.
    """
    palettes = Palettes()
    if len(names) != 1:
        if len(names) < VOID and _only_white(paths, palettes.indices, len(paths)):
            known = f"1..{len(names)}" if names else "1, 2, ..."
            raise ValueError(
                f"expected class indices {known} in masks like {paths[0]}, got 0 and 255 alone, which are "
                f"background and void; paint the classes as {known}, or name one class alone"
            )
        return lambda path: files.by_name(path, palettes.indices)
    white = _only_white(paths, masks.numbers, _SAMPLE)
    if white:
        logger.warning("masks hold 0 and 255 and no 1: 255 is taken for %r, not for void", names[0])
    return lambda path: files.by_name(path, lambda drawn: _one(drawn, white))


def by_colour(colours: Mapping[str, Colour], names: tuple[str, ...], void: int) -> Read:
    """What makes (H, W) indices of masks that are painted in these colours of classes, `background` and `void`."""
    index = {"background": 0, "void": void} | {name: i for i, name in enumerate(names, 1)}
    table = {int(masks.packed(np.array(colour))): index[name] for name, colour in colours.items() if name in index}

    def read(drawn: Drawn) -> np.ndarray:
        painted = masks.packed(masks.colours(drawn))
        values, inverse = np.unique(painted, return_inverse=True)
        unknown = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in values if int(v) not in table]
        if unknown:
            share = np.isin(painted, [v for v in values if int(v) not in table]).mean()
            raise ValueError(
                f"expected the colours of the classes, got also {unknown[:3]} in {100 * share:.2g} % of the pixels; "
                "see colours.json; resizing and JPEG make colours in between: save masks without"
            )
        return files.narrow(np.array([table[int(v)] for v in values])[inverse].reshape(painted.shape))

    return lambda path: files.by_name(path, read)


class Palettes:
    """Palettes of a set seen so far: one number has one colour in all of them."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Colour, str]] = {}

    def indices(self, drawn: Drawn) -> np.ndarray:
        """The numbers of a mask.

        Raises:
            ValueError: as `masks.indices`, or if its palette says that they mean something else than in other masks.
        """
        for number, colour in (drawn.palette or {}).items():
            before, place = self._seen.setdefault(number, (colour, drawn.name))
            if before != colour and number != VOID:
                raise ValueError(
                    f"expected entry {number} of its palette to be {before} as in {place}, got {colour}: its numbers "
                    "mean something else; say whose colours they are in colours.json"
                )
            if number and colour == BLACK and self._seen.get(0, (BLACK, ""))[0] != BLACK:
                raise ValueError(
                    f"expected black, the background, as entry 0 of its palette, got {number}; say whose colours they "
                    "are in colours.json"
                )
        return files.narrow(masks.indices(drawn))


def _one(drawn: Drawn, white: bool) -> np.ndarray:
    """0, 1 and void of a mask in a set of one class; other numbers as they are."""
    numbers = masks.numbers(drawn)
    if white and (numbers == 1).any() and (numbers == VOID).any():
        raise ValueError(
            "expected 0 and 255 as in other masks of the set, got 1 too; use 1 and 255 (void) in all of them"
        )
    return files.narrow(np.where(numbers == VOID, 1, numbers) if white else numbers)


def _only_white(paths: Sequence[Path], read: Callable[[Drawn], np.ndarray], most: int) -> bool:
    """Whether masks hold 0 and 255 and no other number: `most` of them, and all if those are empty.

    Masks that cannot be read are left to whoever needs them.
    """
    white = False
    for number, path in enumerate(_order(paths)):
        with contextlib.suppress(ValueError):
            numbers = files.by_name(path, read)
            if ((numbers != 0) & (numbers != VOID)).any():
                return False
            white = white or bool((numbers == VOID).any())
        if white and number >= most:
            break
    return white


def _order(paths: Sequence[Path]) -> list[Path]:
    """An even sample first, then the others."""
    first = dict.fromkeys(paths[:: max(1, len(paths) // _SAMPLE)])
    return [*first, *(path for path in paths if path not in first)]
