"""The one door for users' images and masks: files, bytes, Pillow images, arrays and tensors, by one set of rules.

docs/inputs.md has the table of what becomes of each encoding.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fss.imaging import images, masks
from fss.imaging.colour import NO_READING, Reading, light, to_srgb
from fss.imaging.errors import UNREADABLE, damaged

#: What a user may hold in hands: a path, a file's bytes, an image of Pillow, an array or a tensor.
Picture = str | Path | bytes | Image.Image | np.ndarray | torch.Tensor
#: What is no list of pictures though it can be iterated; open files are refused by name.
_ALONE = (str, bytes, bytearray, io.IOBase, Mapping)


def as_image(source: Picture, name: str = "", reading: Reading = NO_READING) -> Image.Image:
    """`source` as an upright RGB image.

    A file, its bytes or a Pillow image of any mode are read as `images.decode` says; a Pillow image is turned if it
    still carries an EXIF orientation. Arrays are (H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4); tensors
    also have their channels first. Integers and floats become light as `colour.light` says; floats from 0 on.

    Raises:
        ValueError: for what is no image, naming it by `name`, or by its path.
    """
    return _named(source, name or "image", lambda called: _image(source, reading, called))


def as_mask(source: Picture, name: str = "") -> np.ndarray:
    """`source` as an (H, W) uint8 mask of one thing: 1 is the thing, 0 the rest, 255 void.

    Raises:
        ValueError: for what is no mask of one thing, naming it by `name`, or by its path.
    """
    return _named(source, name or "mask", lambda called: masks.binary(drawn(source, called)))


def as_labels(source: Picture, name: str = "") -> np.ndarray:
    """`source` as (H, W) int64 class indices, as they are written.

    Raises:
        ValueError: for what holds no class indices, naming it by `name`, or by its path.
    """
    return _named(source, name or "mask", lambda called: masks.indices(drawn(source, called)))


def as_support(image: Picture, mask: Picture, name: str = "support") -> tuple[Image.Image, np.ndarray]:
    """`as_image` and `as_mask` of a picture and the mask that was drawn on it, of one size.

    A mask that was drawn on the stored pixels of a photo that EXIF turns is turned along, see `masks.upright`.

    Raises:
        ValueError: as those, or if the sizes differ.
    """
    return as_image(image, name), fitted(as_mask(mask, f"{name}'s mask"), image, name)


def fitted(mask: np.ndarray, image: Picture, name: str = "support") -> np.ndarray:
    """An (H, W) mask that was drawn on `image`, turned as that is.

    Raises:
        ValueError: for what is no image, or of another size.
    """
    width, height, orientation = stored_size(image, name)
    turned = masks.upright(mask, (width, height, orientation), f"{name}'s mask")
    size = (height, width) if orientation >= 5 else (width, height)
    if turned.shape != size[::-1]:
        raise ValueError(
            f"{name}: expected a mask of {size[0]}x{size[1]} like its image, got {turned.shape[1]}x{turned.shape[0]}"
        )
    return turned


def several(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """The pictures, also of one that is given alone.

    Of an array of four axes the first counts pictures. One of three is one picture if its first or last axis may be
    colours, else its first axis counts grey ones.
    """
    if isinstance(pictures, np.ndarray | torch.Tensor):
        alone = pictures.ndim < 3 or (pictures.ndim == 3 and not {1, 3, 4}.isdisjoint(pictures.shape[::2]))
    else:
        alone = isinstance(pictures, _ALONE) or not isinstance(pictures, Iterable)
    return [pictures] if alone else pictures  # type: ignore[list-item, return-value]


def stored_size(source: Picture, name: str = "image") -> tuple[int, int, int]:
    """(width, height, EXIF orientation) of a picture before it is turned; arrays are upright.

    Raises:
        ValueError: for what is no image.
    """
    if isinstance(source, str | Path | bytes):
        return _named(source, name, lambda _: images.stored_size(_bytes(source)))
    if isinstance(source, Image.Image):
        return *source.size, images.orientation_of(source)
    height, width = _channels_last(_array(source)).shape[:2]
    return width, height, 1


def drawn(source: Picture, name: str) -> masks.Drawn:
    """A mask as it was written, for whoever reads it by rules of a whole set.

    Raises:
        ValueError: if it cannot be read.
    """
    if isinstance(source, str | Path | bytes):
        return masks.decode(_bytes(source), name)
    if isinstance(source, Image.Image):
        return masks.from_image(source, name)
    return masks.from_array(_channels_last(_array(source)), name)


def _image(source: Picture, reading: Reading, name: str) -> Image.Image:
    if isinstance(source, str | Path | bytes):
        return images.decode(_bytes(source), reading=reading)
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise ValueError(f"expected an image of one pixel or more, got {source.width}x{source.height}")
        try:
            return to_srgb(images.turned(source, images.orientation_of(source)), reading)
        except UNREADABLE as error:
            raise damaged(error) from error
    array = _channels_last(_array(source))
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape or array.dtype.kind not in "buif":
        raise ValueError(f"expected (H, W) or (H, W, 3) numbers, got {array.shape} {array.dtype}")
    if array.dtype.kind == "f" and array.min() < 0:
        low, high = array.min(), array.max()
        raise ValueError(f"expected floats from 0 to 1 or 255, got {low:g}..{high:g}; undo the normalisation")
    shown = light(array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array, reading.range)
    return to_srgb(Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown))


def _array(source: Any) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        try:
            plain = source.detach().cpu().resolve_conj().resolve_neg()
            return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
        except (RuntimeError, TypeError) as error:  # sparse, quantised or of eight bits, or without content
            what = f"{source.dtype}, {source.layout} on {source.device}"
            raise ValueError(f"expected a dense tensor of numbers, got {what} ({error})") from error
    if isinstance(source, np.ndarray):
        return source
    raise ValueError(f"expected a path, bytes, a Pillow image, an array or a tensor, got {type(source).__name__}")


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(H, W, C) of (H, W), (H, W, C) or (C, H, W); the last axis holds the channels where both could."""
    if array.ndim == 2:
        return array[..., None]
    first = array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4)
    return np.moveaxis(array, 0, -1) if first else array


def _bytes(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"expected an image at {source}, there is no such file") from error
    except OSError as error:
        raise ValueError(f"expected an image at {source}, it cannot be read: {error.strerror}") from error


def _called(source: Picture, name: str) -> str:
    return str(source) if isinstance(source, str | Path) else name


def _named(source: Picture, name: str, work: Any) -> Any:
    called = _called(source, name)
    try:
        return work(called)
    except ValueError as error:
        if called in str(error):
            raise
        raise ValueError(f"{called}: {error}") from error
