"""Untrusted image bytes to RGB pixels and network input, and back to JPEG and PNG bytes."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from fss.imaging import jpeg, raster
from fss.imaging.colour import NO_READING, Reading, is_srgb, to_srgb
from fss.imaging.errors import UNREADABLE, BadImageError, damaged

if TYPE_CHECKING:
    import torch

#: Decoders that may touch untrusted bytes. EPS and friends, which start other programs, are not among them. JPEG covers
#: MPO, which Pillow does not know as a format to open.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_JPEGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})
EXTENSIONS = _JPEGS | {".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
#: Images that nobody here decodes: counted as inputs, so that they are refused by name and not overlooked.
UNDECODED = frozenset({".heic", ".heif", ".jxl", ".jp2", ".svg", ".eps", ".psd", ".dng", ".cr2", ".nef", ".arw"})
#: What the names of all these end in.
NAMED = EXTENSIONS | UNDECODED
_OTHERS = {
    "a HEIC image": re.compile(rb"....ftyp(heic|heix|hevc|mif1|msf1)", re.DOTALL),
    "a JPEG XL image": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ", re.DOTALL),
    "a JPEG 2000 image": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", re.DOTALL),
    "an SVG drawing": re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL),
    "a PostScript document": re.compile(rb"%!PS"),
    "a Photoshop document": re.compile(rb"8BPS"),
}
#: What was fetched in place of an image, and what to do then.
_STAND_INS = {
    "a web page, not an image; download the image itself": re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE),
    "a git-lfs pointer, not the image; run git lfs pull": re.compile(rb"version https://git-lfs"),
}
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
VOID = 255
#: How images are stretched, both with antialiasing, as the networks of the field were trained.
INTERPOLATIONS = ("bilinear", "bicubic")
#: What makes a picture of each EXIF orientation upright; from 5 on it exchanges the sides.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_TURNS = (b"eXIf", b"rientation", b"Raw profile")
_LABEL_FORMATS = ("PNG", "GIF", "BMP", "TIFF")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """An upright 8-bit sRGB image; `width` and `height` of the whole upright file, pixels.

    `as_stored`: the file is a JPEG, and its own pixels are these, or were if all of them had been asked for.
    """

    image: Image.Image
    width: int
    height: int
    as_stored: bool


def is_image_name(name: str, extensions: Collection[str] = EXTENSIONS) -> bool:
    """Whether a path, relative to its folder, ends as an image's does and no part of it is hidden."""
    suffix = os.path.splitext(name)[1].lower()  # pathlib takes ten times as long, for each of a billion names
    return suffix in extensions and not any(map(is_hidden, name.split("/")))


def is_hidden(name: str) -> bool:
    """Whether a name starts with a dot, `.` and `..` aside: macOS's `._a.jpg`, Jupyter's `.ipynb_checkpoints`."""
    return name.startswith(".") and name not in (".", "..")


def decode(data: bytes, *, max_pixels: int = 64_000_000, reading: Reading = NO_READING) -> Image.Image:
    """Decode `data` into an upright RGB image.

    EXIF orientation is applied, transparency is laid over white, 16-bit and float pixels are scaled to 8 bits
    (see `colour.light` and `raster`; Pillow would saturate or blank them), other colour spaces and wide-gamut profiles
    become sRGB, animations and multi-page files give their first frame.

    Raises:
        BadImageError: with reason `empty`, `unsupported`, `unreadable`, `too_large` (from the header, before any
            pixel is decoded), `truncated`, `broken`, `bands` or `no_data`.
    """
    return inspect(data, max_pixels=max_pixels, reading=reading).image


def inspect(
    data: bytes,
    *,
    max_pixels: int = 64_000_000,
    longer_side: int | None = None,
    skim: bool = False,
    reading: Reading = NO_READING,
) -> Decoded:
    """`decode`, and what the file is. With `longer_side`, a JPEG of four times that size or more may come at a half,
    a quarter or an eighth of its size, but at least at twice `longer_side`: the rest of the way is `fit`'s.

    With `skim`, a JPEG within `longer_side` that is `as_stored` comes at an eighth of its size. All of its compressed
    data is read as ever, so that the same damage is noticed, without the work of turning it into pixels.

    Raises:
        BadImageError: as `decode`.
    """
    numbers = raster.read(data, max_pixels, reading)
    if numbers is not None:
        image = to_srgb(turned(numbers.picture(reading), numbers.orientation))
        return Decoded(image, *image.size, False)
    opened = open_header(data, FORMATS, max_pixels)
    try:
        size, orientation = opened.size, orientation_of(opened)
        share = 0.0 if longer_side is None else max(size) / longer_side
        drafts = opened.format in ("JPEG", "MPO") and not jpeg.is_lossless(data)  # which cannot come smaller
        kept = drafts and share < 4 and orientation == 1 and is_srgb(opened)
        if kept and skim and 0 < share <= 1:
            opened.draft(None, (1, 1))
        elif share >= 4 and drafts:
            opened.draft(None, (math.ceil(size[0] * 2 / share), math.ceil(size[1] * 2 / share)))
        opened.load()
        image = to_srgb(turned(opened, orientation), reading)
    except BadImageError:
        raise
    except UNREADABLE as error:
        raise damaged(error) from error
    width, height = size[::-1] if orientation >= 5 else size
    return Decoded(image, width, height, kept)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """`image` upright, as its EXIF `orientation` (1 to 8) says, and without it; its profile and transparency stay."""
    if orientation == 1:
        return image
    upright = image.transpose(_TURNS[orientation])
    for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        upright.info.pop(key, None)
    return upright


def stored_size(data: bytes, *, max_pixels: int = 64_000_000) -> tuple[int, int, int]:
    """(width, height, EXIF orientation) as the file has them, from the header: no pixel of a JPEG is decoded.

    Raises:
        BadImageError: with reason `empty`, `unreadable` or `too_large`; damage behind the header goes unseen.
    """
    numbers = raster.size(data)
    if numbers is not None:
        return numbers
    image = open_header(data, FORMATS, max_pixels)
    if image.format == "PNG" and not any(word in data for word in _PNG_TURNS):
        return *image.size, 1  # Pillow would decode all of it to look for EXIF behind the pixels
    return *image.size, orientation_of(image)


def upright_size(data: bytes, *, max_pixels: int = 64_000_000) -> tuple[int, int]:
    """(width, height) of `decode(data)`, from the header.

    Raises:
        BadImageError: as `stored_size`.
    """
    width, height, orientation = stored_size(data, max_pixels=max_pixels)
    return (height, width) if orientation >= 5 else (width, height)


def open_header(data: bytes, formats: tuple[str, ...] = FORMATS, max_pixels: int = 64_000_000) -> Image.Image:
    """The image that the header announces, no pixel decoded yet.

    Raises:
        BadImageError: with reason `empty`, `unsupported`, `unreadable` or `too_large`.
    """
    if not data:
        raise BadImageError("empty", "expected an image file, got 0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own budget is checked below
            image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise BadImageError("too_large", f"more pixels than Pillow reads ({error}); cut it into pieces") from error
    except UNREADABLE as error:
        raise _foreign(data, formats) from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImageError(
            "too_large",
            f"{width}x{height} is over the budget of {max_pixels} pixels; shrink it, or raise corpus.max_pixels of a "
            "corpus",
        )
    if width == 0 or height == 0:
        raise BadImageError("unreadable", f"the header says {width}x{height}")
    return image


def _foreign(data: bytes, formats: tuple[str, ...]) -> BadImageError:
    known = _STAND_INS | {f"{kind}; convert it to one of {', '.join(formats)}": one for kind, one in _OTHERS.items()}
    told = next((words for words, pattern in known.items() if pattern.match(data[:256])), None)
    if told is not None:
        return BadImageError("unsupported", told)
    return BadImageError("unreadable", f"not one of {', '.join(formats)}, or its header is damaged")


def orientation_of(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1, as it stands, also if the block is corrupt or says nonsense; Pillow turns TIFFs by itself."""
    if image.format == "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in _TURNS else 1
    except Exception:  # a corrupt EXIF block says nothing about the pixels, and Pillow raises many types here
        return 1


def fit(image: Image.Image, longer_side: int) -> Image.Image:
    """Shrink `image` so that its longer side is at most `longer_side` pixels; smaller images are left as they are."""
    scale = longer_side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def encode_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """RGB image to baseline JPEG bytes, the same bytes for the same pixels and library version, and nothing else."""
    buffer = io.BytesIO()
    image = image.copy()
    image.info = {}  # Pillow would write a comment that the original had
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_png(array: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16 label map, or (H, W, 3) uint8 picture, to PNG bytes without loss."""
    buffer = io.BytesIO()
    # Label maps are runs of equal values: looking for those alone takes half the time and an eighth less space.
    strategy = {"compress_type": zlib.Z_RLE} if array.ndim == 2 else {}
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG", compress_level=4, **strategy)
    return buffer.getvalue()


def encode_palette(labels: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """(H, W) uint8 labels to the bytes of a PNG that viewers show in `colours`, one for each label from 0 on.

    Its numbers are the labels: `decode_labels` returns them.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette([level for colour in colours for level in colour])
    image.save(buffer, "PNG", compress_level=4, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def decode_labels(data: bytes, *, max_pixels: int = 64_000_000) -> np.ndarray:
    """PNG bytes of an index, palette or 16-bit image to its (H, W) int32 label values, never to its colours.

    Raises:
        BadImageError: if it cannot be read, or is a colour image, whose indices nobody knows.
    """
    image = open_header(data, _LABEL_FORMATS, max_pixels)
    step = depth_step(image)
    try:
        array = np.asarray(image)
    except UNREADABLE as error:
        raise damaged(error) from error
    if array.ndim != 2:
        raise BadImageError(
            "not_a_label_map",
            f"expected one channel of class indices, got mode {image.mode} with shape {array.shape}; "
            "convert colours to indices first",
        )
    return array.astype(np.int32) // step


def depth_step(image: Image.Image) -> int:
    """By how much Pillow multiplies the numbers of an image that is not loaded yet: 2 and 4 bits of grey to fill 8."""
    tiles = getattr(image, "tile", None)
    mode = tiles[0][3] if tiles else ""
    mode = mode[0] if isinstance(mode, tuple) else mode
    return {"L;2": 85, "L;4": 17}.get(str(mode)[:3], 1)


def decode_colours(data: bytes, *, max_pixels: int = 64_000_000) -> np.ndarray:
    """PNG bytes of a mask to its (H, W, 3) uint8 colours as they are written, transparency left out.

    Raises:
        BadImageError: if it cannot be read.
    """
    image = open_header(data, _LABEL_FORMATS, max_pixels)
    try:
        return np.asarray(image.convert("RGBA").convert("RGB"))
    except UNREADABLE as error:
        raise damaged(error) from error


def to_tensor(image: Image.Image, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Stretch an RGB image to the network's input: (3, size, size) float32, ImageNet-normalised.

    `interpolation` is one of `INTERPOLATIONS`.

    Stretching keeps the map between pixels and features one scale per axis, with no padding that could be clustered
    or segmented along with the picture (the released UMTFSS code pads, and its masks come back displaced).
    """
    return normalise(to_bytes(image, size, interpolation).float().div_(255))


def to_bytes(image: Image.Image, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """The same, (3, size, size) uint8, before it is normalised."""
    import torch

    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling[interpolation.upper()], reducing_gap=3.0)
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) float in [0, 1] to ImageNet-normalised values."""
    mean = pixels.new_tensor(MEAN).view(3, 1, 1)
    std = pixels.new_tensor(STD).view(3, 1, 1)
    return (pixels - mean) / std
