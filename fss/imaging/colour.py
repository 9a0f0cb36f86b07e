"""Any mode of Pillow to 8-bit sRGB, without the silent damage of a bare `convert("RGB")`."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}
#: Largest difference in any channel at which a profile counts as sRGB itself.
_SAME = 2
_BITS = (8, 10, 12, 14, 16, 24, 32)


def to_srgb(image: Image.Image) -> Image.Image:
    """`image` as 8-bit sRGB; the very same object if that is what it is.

    Transparency is laid over white; deep and float pixels are scaled as `scaled_to_8_bits` says; an ICC profile that
    is not sRGB is applied, a broken one is ignored, as browsers do.
    """
    profile = image.info.get("icc_profile")
    given = image
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(scaled_to_8_bits(np.asarray(image)), mode="L").convert("RGB")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    if profile and (found := _transform(profile)) is not None and found[0] in (image.mode, given.mode):
        moved = ImageCms.applyTransform(image if image.mode == found[0] else given, found[1])
        assert moved is not None  # it is not done in place
        return moved
    return image if image.mode == "RGB" else image.convert("RGB")


def is_srgb(image: Image.Image) -> bool:
    """Whether `to_srgb` leaves `image` as it is, told by its header alone."""
    profile = image.info.get("icc_profile")
    found = _transform(profile) if profile else None
    return image.mode == "RGB" and "transparency" not in image.info and (found is None or found[0] != "RGB")


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


def scaled_to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """(H, W) integers or floats to (H, W) uint8.

    Integers are divided by the largest number of the least of 8, 10, 12, 14, 16, 24 and 32 bits that holds them all:
    cameras and scanners write 10 to 14 bits into 16-bit files, which the full range would turn nearly black, while
    stretching each image by its own maximum would undo its exposure. Floats within [0, 1] are shares of white, others
    within [0, 255] are grey levels, and anything else is stretched over its range; what is not finite is black.
    """
    if pixels.dtype.kind in "iu":
        values = pixels.astype(np.float64) - min(0, int(pixels.min()))
        top = next(2.0**bits - 1 for bits in _BITS if values.max() < 2.0**bits)
        return (values / top * 255 + 0.5).astype(np.uint8)
    finite = np.isfinite(pixels)
    values = np.where(finite, pixels, 0).astype(np.float64)
    low, high = (float(f(values[finite])) if finite.any() else 0.0 for f in (np.min, np.max))
    if low < 0 or high > 255:
        values, top = values - low, high - low
    else:
        top = 1.0 if high <= 1 else 255.0
    return (np.where(finite, np.clip(values / top, 0, 1), 0) * 255 + 0.5).astype(np.uint8)
