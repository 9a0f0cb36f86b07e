"""Any mode of Pillow to 8-bit sRGB, without the silent damage of a bare `convert("RGB")`."""

from __future__ import annotations

import dataclasses
import functools
import io

import numpy as np
from PIL import Image, ImageCms

from fss.imaging.errors import BadImageError

_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}
#: Largest difference in any channel at which a profile counts as sRGB itself.
_SAME = 2
_BITS = (8, 10, 12, 14, 16, 24, 32)
#: Negative numbers that stand for "nothing measured here" where no tag says so, and the size of floats that do.
_SENTINELS = (-9999, -32768)
_ABSURD = 1e30
#: Shares of a picture's numbers below black and above white where they are stretched over their own range.
_ENDS = (0.005, 0.995)
_SAMPLE = 1 << 18


@dataclasses.dataclass(frozen=True)
class Reading:
    """How numbers become light where files do not say it: three bands or one, from 1, and the numbers shown black and
    white; None is what the file itself suggests."""

    bands: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None


NO_READING = Reading()


def to_srgb(image: Image.Image, reading: Reading = NO_READING) -> Image.Image:
    """`image` as 8-bit sRGB; the very same object if that is what it is.

    Transparency is laid over white, but where nothing would be seen it is left out; deep and float pixels are scaled as
    `light` says; an ICC profile that is not sRGB is applied, a broken one is ignored, as browsers do.

    Raises:
        BadImageError: with reason `no_data` if no pixel holds a number.
    """
    profile = image.info.get("icc_profile")
    given = image
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(light(np.asarray(image)[..., None], reading.range)[..., 0]).convert("RGB")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        seen = rgba.getchannel("A").getextrema() != (0, 0)
        image = (Image.alpha_composite(white, rgba) if seen else rgba).convert("RGB")
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    if profile and (change := _transform(profile)) is not None and change[0] in (image.mode, given.mode):
        moved = ImageCms.applyTransform(image if image.mode == change[0] else given, change[1])
        assert moved is not None  # it is not done in place
        return moved
    return image if image.mode == "RGB" else image.convert("RGB")


def is_srgb(image: Image.Image) -> bool:
    """Whether `to_srgb` leaves `image` as it is, told by its header alone."""
    profile = image.info.get("icc_profile")
    change = _transform(profile) if profile else None
    return image.mode == "RGB" and "transparency" not in image.info and (change is None or change[0] != "RGB")


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """(mode it applies to, transform to sRGB) of an ICC profile; None if it is broken or changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space.strip()]
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
        if mode != "RGB":
            return mode, transform
        lattice = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), -1).reshape(1, -1, 3)
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(lattice), transform)).astype(int)
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None
    return (mode, transform) if np.abs(moved - lattice).max() > _SAME else None


def light(pixels: np.ndarray, span: tuple[float, float] | None = None, nodata: float | None = None) -> np.ndarray:
    """(H, W, bands) integers or floats to uint8 of the same shape, all bands alike.

    `span` are the numbers that become black and white. Without it unsigned integers are divided by the largest number
    of the least of 8, 10, 12, 14, 16, 24 and 32 bits that holds them all: cameras and scanners write 10 to 14 bits into
    16-bit files, which the full range would turn nearly black, while stretching each image by its own maximum would
    undo its exposure. Floats within [0, 1] are shares of white, others within [0, 255] are grey levels. Anything else
    is stretched over its range, half a per cent at each end aside. Pixels of which a band is not finite, `nodata`, or
    -9999, -32768 or the lowest float are left out of all this, and black.

    Raises:
        BadImageError: with reason `no_data` if there is no other pixel, `constant` if those hold but one number.
    """
    if pixels.dtype == np.uint8 and span is None and nodata is None:
        return pixels
    valid = np.concatenate([_valid(rows, nodata) for rows in _blocks(pixels)])
    if not valid.any():
        raise BadImageError("no_data", "no pixel holds a number: all are nodata or not finite")
    low, high = span or _limits(pixels, valid)
    if span is None and low == high:
        if not valid.all():
            raise BadImageError("constant", "all pixels that are not nodata hold one number: there is nothing to see")
        high = low + 1
    shown = np.empty(pixels.shape, np.uint8)
    for numbers, known, to in zip(_blocks(pixels), _blocks(valid), _blocks(shown), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            shares = (numbers.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        shares[~known] = 0
        to[:] = np.clip(shares, 0, 1) * 255 + np.float32(0.5)
    return shown


def _blocks(pixels: np.ndarray) -> list[np.ndarray]:
    """Views of some rows each, so that what is computed of them takes little memory beside a large picture."""
    step = max(1, _SAMPLE // max(1, pixels.shape[1]))
    return [pixels[start : start + step] for start in range(0, len(pixels), step)]


def _valid(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    """(H, W) bool: where all bands hold numbers."""
    valid = np.ones(pixels.shape, bool)
    if pixels.dtype.kind == "f":
        valid &= np.abs(pixels.astype(np.float64)) < _ABSURD  # and finite
    if pixels.dtype.kind in "fi":
        valid &= ~np.isin(pixels, _SENTINELS)
    if nodata is not None:
        valid &= pixels != nodata
    return np.asarray(valid.all(axis=-1))


def _limits(pixels: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """The numbers that become black and white; one twice if there is but one to see."""
    extremes = [(rows[known].min(), rows[known].max()) for rows, known in _known(pixels, valid)]
    low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    if low == high and not valid.all():
        return low, high
    if low >= 0 and pixels.dtype.kind in "uib":
        return 0.0, next((2.0**bits - 1 for bits in _BITS if high < 2.0**bits), high)
    if low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    step = -(-pixels.size // _SAMPLE)
    some = np.concatenate([rows[known].reshape(-1)[::step] for rows, known in _known(pixels, valid)])
    inner = float(np.quantile(some, _ENDS[0], method="lower")), float(np.quantile(some, _ENDS[1], method="higher"))
    return inner if inner[0] < inner[1] else (low, high)


def _known(pixels: np.ndarray, valid: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(rows, known) for rows, known in zip(_blocks(pixels), _blocks(valid), strict=True) if known.any()]
