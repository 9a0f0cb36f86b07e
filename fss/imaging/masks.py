"""Masks as tools write them, and what they mean: the thing and the rest of one picture, or the indices of classes.

The table of encodings stands in docs/inputs.md. Where a file can be read in two ways a stated rule decides, and the log
says which; where none can, the file is refused with the remedy.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from fss.imaging import images, raster
from fss.imaging.colour import light
from fss.imaging.errors import UNREADABLE, damaged

logger = logging.getLogger(__name__)

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
VOID = images.VOID
#: Formats that change numbers a little.
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
#: Formats of several pictures, beside TIFF.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
#: From here on a mask's brightest number is white, and this near to black and white pixels are black and white.
_WHITE = 200
_NEAR = 0.1
#: Largest share of soft edges in a mask, and of pixels in them that are like their neighbours, as those of regions are.
_EDGES, _FLAT = 0.2, 0.1
#: Masks that are named for each rule that had to decide, and how often each did.
_EXAMPLES = 5
_said: Counter[str] = Counter()


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A mask as it was written: (H, W) bool, integers or floats, or (H, W, 3 or 4) uint8 colours.

    `palette` has the colours of the numbers that occur, `lossy` says that its format changes numbers a little.
    """

    values: np.ndarray
    name: str
    palette: Mapping[int, Colour] | None = None
    lossy: bool = False

    def refused(self, expected: str, got: str, remedy: str) -> ValueError:
        """The error for what this is not."""
        return ValueError(f"expected {expected}, got {got}; {remedy}")


def decode(data: bytes, name: str, *, max_pixels: int = 64_000_000) -> Drawn:
    """The mask of a file's bytes, upright as its own EXIF says.

    Raises:
        ValueError: if it cannot be read, or holds several pictures, of which nobody knows which is meant.
    """
    deep = raster.read(data, max_pixels)
    image = None if deep is not None else images.open_header(data, max_pixels=max_pixels)
    frames = getattr(image, "n_frames", 1) if image is not None and image.format in _ANIMATED else raster.pages(data)
    if frames > 1:
        raise ValueError(f"expected one mask, got {frames} pictures in one file; save each as a file of its own")
    if deep is not None:
        return from_array(_upright(deep.pixels, deep.orientation), name)
    assert image is not None
    return from_image(image, name)


def from_image(image: Image.Image, name: str) -> Drawn:
    """The mask of a Pillow image of any mode, upright as its EXIF says.

    Raises:
        BadImageError: if it cannot be read.
    """
    lossy, step, orientation = image.format in _LOSSY, images.depth_step(image), images.orientation_of(image)
    try:
        image.load()
        image = images.turned(image, orientation)
        if image.mode == "P":
            indices = np.asarray(image)
            return Drawn(indices, name, _used_colours(image, indices))
        if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
            values = np.asarray(image)
            return Drawn(values // step if step > 1 else values, name, lossy=lossy)
        return Drawn(np.asarray(image.convert("RGBA" if "A" in image.mode.upper() else "RGB")), name, lossy=lossy)
    except UNREADABLE as error:
        raise damaged(error) from error


def from_array(array: np.ndarray, name: str) -> Drawn:
    """The mask of an (H, W), (H, W, 1) or (1, H, W) array of numbers, or one of (H, W, 2 to 4) colours, alpha last.

    Raises:
        ValueError: for another shape or type.
    """
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[..., 0] if array.shape[2] == 1 else array[0]
    if array.ndim == 3 and array.shape[2] == 2:
        array = array[..., [0, 0, 0, 1]]
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype.kind not in "buif" or not (array.ndim == 2 or colours):
        raise ValueError(f"expected (H, W) numbers or (H, W, 3) colours, got {array.shape} {array.dtype}")
    if colours and array.dtype != np.uint8:
        array = light(array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array)
    return Drawn(array, name)


def binary(drawn: Drawn) -> np.ndarray:
    """(H, W) uint8: 1 is the thing, 0 the rest, 255 void.

    Raises:
        ValueError: if it shows more than one thing, or nobody can tell which.
    """
    labels = numbers(drawn)
    values = set(np.unique(labels).tolist())
    if 1 in values and values <= {0, 1, VOID, 65535}:
        return np.where(labels > 1, VOID, labels).astype(np.uint8)
    if len(values - {0}) <= 1:
        return (labels != 0).astype(np.uint8)
    raise drawn.refused("a mask of 0 and one other value", str(sorted(values)[:6]), "keep one class, as 1")


def bright(drawn: Drawn) -> np.ndarray:
    """(H, W) uint8: 1 in the brighter half of what is black to white by definition: from half of white on.

    White is 1 where nothing is above it (0 and 1, or shares), else 255, or 65535 where numbers are deep.

    Raises:
        ValueError: for numbers that are no brightness.
    """
    values = drawn.values.astype(np.uint8) if drawn.values.dtype == bool else drawn.values
    grey = values if values.ndim == 2 and drawn.palette is None else _painted(drawn).max(axis=2)
    low, high = float(grey.min(initial=0)), float(grey.max(initial=0))
    if not (low >= 0 and high <= np.iinfo(np.uint16).max):
        raise drawn.refused("numbers from black to white", f"{low:g}..{high:g}", "rescale them to 0..255")
    white = next(each for each in (1, 255, 65535) if high <= each)
    return np.asarray(grey >= white / 2).astype(np.uint8)


def numbers(drawn: Drawn) -> np.ndarray:
    """(H, W) integers of a mask of one thing: palettes, colours and transparency by their looks, soft edges cut.

    Raises:
        ValueError: if nobody can tell what it shows.
    """
    labels = _looks(drawn)
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise drawn.refused("numbers from 0", str(labels.min()), "make the rest 0 and the thing 1")
    if labels.dtype.kind == "f":
        labels = _whole_or_cut(labels, drawn)
    return _cut(labels, drawn) if drawn.lossy or _is_soft(labels) else labels


def indices(drawn: Drawn) -> np.ndarray:
    """(H, W) int64 class indices as they are written; a palette's numbers, and those of three equal channels.

    Raises:
        ValueError: for colours, fractions, and formats that change numbers.
    """
    values = drawn.values
    if drawn.lossy:
        raise drawn.refused("class indices", "a format that changes numbers a little", "save the mask as PNG")
    if values.ndim == 3:
        grey = _grey(_opaque(drawn))
        if grey is None:
            raise drawn.refused(
                "one channel of class indices", "colours", "say whose they are in colours.json, or convert them"
            )
        values = grey
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise drawn.refused("class indices", "fractions", "round the mask to whole numbers")
    return values.astype(np.int64)


def colours(drawn: Drawn) -> np.ndarray:
    """(H, W, 3) uint8: the colours that a mask is painted in, transparency left out.

    Raises:
        ValueError: for formats that change colours, and deep numbers.
    """
    if drawn.lossy:
        raise drawn.refused("colours of classes", "a format that changes them a little", "save the mask as PNG")
    return _painted(drawn)


def _painted(drawn: Drawn) -> np.ndarray:
    values = drawn.values
    if drawn.palette is not None:
        table = np.zeros((256, 3), np.uint8)
        table[list(drawn.palette)] = list(drawn.palette.values())
        return np.asarray(table[values])
    if values.ndim == 3:
        return values[..., :3]
    grey = values.astype(np.uint8) * np.uint8(255) if values.dtype == bool else values
    if grey.dtype != np.uint8:
        raise drawn.refused("colours of classes", f"{grey.dtype} numbers", "save the mask as an RGB PNG")
    return np.repeat(grey[..., None], 3, axis=2)


def upright(mask: np.ndarray, stored: tuple[int, int, int], name: str) -> np.ndarray:
    """`mask` on the upright picture of a photo of (width, height, EXIF orientation) as its file has it.

    A mask whose size fits the stored pixels alone was drawn on those and is turned along. One that fits both is taken
    to be upright: no file says on which of them it was drawn.
    """
    width, height, orientation = stored
    if orientation == 1 or mask.shape != (height, width):
        return mask
    if orientation < 5 or width == height:
        _say("%s: its photo is turned by EXIF orientation %d; the mask is taken to be drawn on the turned photo", name,
             orientation)  # fmt: skip
        return mask
    _say("%s: drawn on the stored pixels of a photo that EXIF orientation %d turns; turned along", name, orientation)
    return _upright(mask, orientation)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) numbers as `images.turned` turns pictures."""
    height, width = array.shape[:2]
    order = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    picked = np.asarray(images.turned(order, orientation))
    return array.reshape(height * width, *array.shape[2:])[picked]


def _used_colours(image: Image.Image, used: np.ndarray) -> dict[int, Colour]:
    palette = image.getpalette("RGB") or []
    palette = [*palette, *[0] * (768 - len(palette))]
    return {int(i): (palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]) for i in np.unique(used).tolist()}


def _looks(drawn: Drawn) -> np.ndarray:
    """(H, W) numbers of a mask of one thing, where 0 is the rest: colours and palettes by what they look like."""
    if drawn.palette is not None:
        return _by_palette(drawn, drawn.palette)
    if drawn.values.ndim == 2:
        return drawn.values.astype(np.uint8) if drawn.values.dtype == bool else drawn.values
    if drawn.values.shape[2] == 4 and (alpha := _alpha(drawn)) is not None:
        return alpha
    painted = _opaque(drawn)
    if drawn.lossy:
        return painted.max(axis=2)
    grey = _grey(painted)
    return _by_colour(painted, drawn) if grey is None else grey


def _alpha(drawn: Drawn) -> np.ndarray | None:
    """1 where a mask is opaque, if transparency says what the thing is; None where all of the picture has one."""
    alpha = drawn.values[..., 3]
    if alpha.min() == alpha.max():
        return None
    shown = packed(drawn.values[alpha >= 128][:, :3])
    if 0 in shown and len(np.unique(shown)) == 2:
        raise drawn.refused(
            "a mask in colours or in transparency", "both, and they differ", "save it without transparency"
        )
    _say("%s: its transparency is the mask, what is opaque is the thing", drawn.name)
    return (alpha >= alpha.max() / 2).astype(np.uint8)


def _opaque(drawn: Drawn) -> np.ndarray:
    """(H, W, 3) colours, where transparency says nothing; the mask is refused where it does."""
    values = drawn.values
    if values.shape[2] == 4 and values[..., 3].min() != values[..., 3].max():
        raise drawn.refused("class indices", "transparency", "save the mask without it")
    return values[..., :3]


def _grey(painted: np.ndarray) -> np.ndarray | None:
    """The number of three equal channels; None of colours."""
    return painted[..., 0] if (painted == painted[..., :1]).all() else None


def _by_palette(drawn: Drawn, palette: Mapping[int, Colour]) -> np.ndarray:
    """A palette's numbers where its entry 0 is black, as in VOC's masks, else what its colours look like.

    Greys are always their brightness: the order of a two-colour palette is that of first use, or of frequency.
    """
    if all(len(set(colour)) == 1 for colour in palette.values()):
        table = np.zeros(256, np.uint8)
        table[list(palette)] = [colour[0] for colour in palette.values()]
        if palette.get(0, BLACK) != BLACK:
            _say("%s: entry 0 of its palette is not black: read by brightness, not by order", drawn.name)
        return np.asarray(table[drawn.values])
    if palette.get(0, BLACK) == BLACK:
        return drawn.values
    _say("%s: entry 0 of its palette is not black: read by its colours, not by their order", drawn.name)
    return _by_colour(colours(drawn), drawn)


def _by_colour(painted: np.ndarray, drawn: Drawn) -> np.ndarray:
    """1 where a picture of black and one other colour is not black."""
    whole = packed(painted)
    tones = np.unique(whole)
    if len(tones) > 2 or (len(tones) == 2 and tones[0] != 0):
        shown = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in tones[:4]]
        raise drawn.refused(
            "a mask of black and one other colour", f"{len(tones)}: {shown}", "paint the thing white and the rest black"
        )
    return np.asarray(whole != 0).astype(np.uint8)


def packed(painted: np.ndarray) -> np.ndarray:
    """(..., 3) colours as (...) whole numbers."""
    r, g, b = np.moveaxis(painted.astype(np.int64), -1, 0)
    return np.asarray(r << 16 | g << 8 | b)


def _whole_or_cut(values: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Floats as integers: whole ones as they are, two numbers as 0 and 1, shares cut at one half."""
    if not np.isfinite(values).all():
        raise drawn.refused("finite numbers", "nan or infinity", "fill them with 0")
    if (values == np.rint(values)).all():
        return values.astype(np.int64)
    low, high = float(values.min()), float(values.max())
    if low == 0 and ((values == 0) | (values == high)).all():
        return (values != 0).astype(np.int64)
    if low < 0 or high > 255:
        raise drawn.refused("shares from 0 to 1", f"{low:g}..{high:g}", "cut the mask at a threshold")
    if high > 1:
        return np.rint(values).astype(np.int64)
    _say("%s: shares from 0 to 1 are cut at 0.5", drawn.name)
    return (values >= 0.5).astype(np.int64)


def _is_soft(labels: np.ndarray) -> bool:
    """Whether what is neither black nor white are edges: pixels that differ from their neighbours, not regions."""
    shares = labels[:-1, :-1] / max(float(labels.max(initial=0)), 1.0)
    between = (shares > _NEAR) & (shares < 1 - _NEAR)
    if labels.max(initial=0) < _WHITE or not between.any():
        return False
    flat = (labels[:-1, :-1] == labels[1:, :-1]) & (labels[:-1, :-1] == labels[:-1, 1:])
    return bool(flat[between].mean() < _FLAT)


def _cut(grey: np.ndarray, drawn: Drawn) -> np.ndarray:
    """1 in the brighter half of a mask that is nearly black and white."""
    top = float(grey.max())
    if top == 0:
        return np.zeros(grey.shape, np.uint8)
    shares = grey / top
    if top < 64 or ((shares > _NEAR) & (shares < 1 - _NEAR)).mean() > _EDGES:
        raise drawn.refused(
            "a mask that is nearly black and white",
            f"many values up to {top:g}",
            "cut it at a threshold, save it as PNG",
        )
    _say("%s: %d values between black and white are cut at half of the brightest", drawn.name, len(np.unique(grey)))
    return (shares >= 0.5).astype(np.uint8)


def _say(rule: str, *values: Any) -> None:
    """Log a rule that was applied: for the first masks, as the others of a large set are like them."""
    _said[rule] += 1
    if _said[rule] <= _EXAMPLES:
        more = "; others like it are not named" if _said[rule] == _EXAMPLES else ""
        logger.warning(rule + more, *values)
