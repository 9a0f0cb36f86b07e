"""Pictures as numbers: TIFF of any depth and number of bands, and PNG of 16-bit colour, which Pillow cannot read right.

Pillow keeps eight bits of deep colour, knows no band beyond alpha, and takes planar or white-is-zero 16-bit files for
something else. What these files hold becomes light by the one rule of `fss.imaging.colour.light`.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import zlib
from typing import Any

import numpy as np
from PIL import Image

from fss.imaging.colour import NO_READING, Reading, light
from fss.imaging.errors import UNREADABLE, BadImageError, damaged

#: Bytes of decoded numbers for each pixel of the budget: those of a picture with alpha.
_BYTES = 4
_COMPRESSIONS = (1, 8, 32946)  # none, deflate twice: what tifffile reads by itself
_DEFLATE = (8, 32946)
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NODATA = 42113  # GDAL's tag
_PROFILE = 34675
_ORIENTATION = 274
#: (photometric interpretation, samples) of what Pillow reads right at 8 bits.
_PLAIN = {(0, 1), (1, 1), (2, 3), (3, 1), (5, 4), (6, 3), (8, 3)}


@dataclasses.dataclass(frozen=True)
class Raster:
    """The numbers of a picture, (H, W, bands) integers or floats as its file has them, not turned.

    `colour`: the first three bands are red, green and blue. `alpha` is the band that says it is transparency,
    `multiplied` whether colours are so by it. `nodata`: the number of the tag that says so.
    """

    pixels: np.ndarray
    colour: bool
    alpha: int | None = None
    multiplied: bool = False
    nodata: float | None = None
    orientation: int = 1
    profile: bytes | None = None

    def picture(self, reading: Reading) -> Image.Image:
        """An RGB or grey 8-bit picture, not turned.

        Raises:
            BadImageError: with reason `bands` if nobody knows which bands to show, `no_data` if there is none.
        """
        chosen = self._chosen(reading)
        alpha = self._transparency() if reading.bands is None else None
        shown = light(self.pixels[..., chosen], reading.range, self.nodata)
        if alpha is not None:
            colours = shown.astype(np.float32) * (1 if self.multiplied else alpha)
            shown = np.clip(colours + (1 - alpha) * 255 + 0.5, 0, 255).astype(np.uint8)
        image = Image.fromarray(shown[..., 0] if len(chosen) == 1 else shown)
        if self.profile:
            image.info["icc_profile"] = self.profile
        return image

    def _chosen(self, reading: Reading) -> list[int]:
        number = self.pixels.shape[2]
        if reading.bands is not None and number > 1:
            if max(reading.bands) > number:
                raise BadImageError("bands", f"bands= asks for band {max(reading.bands)}, there are {number}")
            return [band - 1 for band in reading.bands]
        if self.colour:
            return [0, 1, 2]
        bands = number - (self.alpha is not None)
        if bands > 3:
            raise BadImageError(
                "bands",
                f"nothing says which of {bands} bands are red, green and blue; set bands=[3,2,1] or so, in a corpus "
                "corpus.bands",
            )
        return [0, 1, 2] if bands == 3 else [0]

    def _transparency(self) -> np.ndarray | None:
        """(H, W, 1) float32 in [0, 1]; None where the band holds something else, as near infrared mislabelled alpha.

        Transparency is mostly all or nothing: a band is taken for it if it is so in half of the pixels.
        """
        if self.alpha is None:
            return None
        band = self.pixels[..., self.alpha : self.alpha + 1]
        top = np.iinfo(band.dtype).max if band.dtype.kind in "iu" else 1
        if ((band <= 0) | (band >= top)).mean() < 0.5 or (band <= 0).all():  # then nothing would be seen
            return None
        return np.clip(band.astype(np.float32) / top, 0, 1)


def read(data: bytes, max_pixels: int, reading: Reading = NO_READING) -> Raster | None:
    """The numbers of `data`; None for a file that Pillow reads right.

    Raises:
        BadImageError: with reason `too_large`, `truncated`, `unsupported` (a compression) or `broken`.
    """
    if data[:8] == _PNG and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\6"):
        return _png(data, max_pixels)
    if data[:4] not in _TIFF:
        return None
    try:
        with _tifffile().TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages.first
            if _is_plain(page) and (reading.bands is None or page.samplesperpixel == 1):
                return None
            return _tiff(data, page, max_pixels)
    except BadImageError:
        raise
    except Exception as error:  # tifffile raises many types on damaged files
        raise damaged(error) from error


def size(data: bytes) -> tuple[int, int, int] | None:
    """(width, height, orientation) of a TIFF that Pillow may not open, from its header; None of anything else.

    Raises:
        BadImageError: with reason `broken`.
    """
    if data[:4] not in _TIFF:
        return None
    try:
        with _tifffile().TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages.first
            return page.imagewidth, page.imagelength, _orientation(page)
    except Exception as error:  # as above
        raise damaged(error) from error


def pages(data: bytes) -> int:
    """How many pictures of the first one's size a TIFF holds, smaller ones being overviews; 1 of anything else.

    Raises:
        BadImageError: with reason `broken`.
    """
    if data[:4] not in _TIFF:
        return 1
    try:
        with _tifffile().TiffFile(io.BytesIO(data)) as file:
            sizes = [page.keyframe.shape[:2] for page in file.pages]
            return sizes.count(sizes[0])
    except Exception as error:  # as above
        raise damaged(error) from error


def _tifffile() -> Any:
    """The module, imported here for it takes a tenth of a second. What it logs its errors say too."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile


def _is_plain(page: Any) -> bool:
    """Whether Pillow reads a page right: eight unsigned bits a sample or less, in a known order, and no nodata."""
    samples = page.samplesperpixel
    return (
        page.bitspersample in (1, 2, 4, 8)
        and page.sampleformat == 1
        and (page.planarconfig == 1 or samples == 1)
        and (page.photometric, samples) in _PLAIN
        and _NODATA not in page.tags
    )


def _tiff(data: bytes, page: Any, max_pixels: int) -> Raster:
    _check_budget(page, max_pixels)
    pixels = _numbers(data, page)
    samples, extra = page.samplesperpixel, tuple(page.extrasamples)
    if page.photometric == 0 and pixels.dtype.kind == "u":
        pixels = (1 << page.bitspersample) - 1 - pixels
    alpha = next((samples - len(extra) + i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    return Raster(
        pixels,
        page.photometric == 2 and samples >= 3,
        alpha,
        alpha is not None and extra[alpha - samples] == 1,
        _nodata(page),
        _orientation(page),
        page.tags[_PROFILE].value if _PROFILE in page.tags else None,
    )


def _check_budget(page: Any, max_pixels: int) -> None:
    width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
    if width < 1 or height < 1 or page.imagedepth != 1 or page.dtype is None:
        raise BadImageError("broken", f"the header says {width}x{height} and {page.bitspersample} bits")
    if page.dtype.kind not in "buif":
        raise BadImageError("unsupported", "complex numbers; save what is to be seen of them, as their magnitude")
    needed = width * height * samples * page.dtype.itemsize
    if width * height > max_pixels or needed > _BYTES * max_pixels:
        raise BadImageError(
            "too_large",
            f"{width}x{height} in {samples} bands are {needed} bytes, over the budget of {max_pixels} pixels of "
            f"{_BYTES} bytes; cut it into pieces, or raise corpus.max_pixels of a corpus",
        )
    if len(page.dataoffsets) > width * height * samples:
        raise BadImageError("broken", f"{len(page.dataoffsets)} pieces of a picture of {width}x{height}")


def _numbers(data: bytes, page: Any) -> np.ndarray:
    """(H, W, bands): by tifffile where it knows the compression, else by Pillow, where that does no harm."""
    if page.compression not in _COMPRESSIONS or page.bitspersample not in (1, 8, 16, 32, 64):
        return _by_pillow(data, page)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if any(start + number > len(data) for start, number in segments):
        raise BadImageError("truncated", f"the file ends at byte {len(data)}, before its pixels do")
    if page.compression in _DEFLATE:
        _check_inflated(data, segments, page)
    if page.is_contiguous and page.bitspersample > 1:  # tifffile would copy them twice
        numbers = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        pixels = np.frombuffer(data, numbers, math.prod(page.shape), page.dataoffsets[0]).reshape(page.shape)
    else:
        pixels = page.asarray()
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def _check_inflated(data: bytes, segments: list[tuple[int, int]], page: Any) -> None:
    """Refuse pieces that unpack to more than their share of the picture, before anybody unpacks them whole."""
    rows, columns = page.chunks[page.axes.index("Y")], page.chunks[page.axes.index("X")]
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    most = math.ceil(rows * columns * samples * page.bitspersample / 8) + columns  # rows of bits are filled up
    for start, number in segments:
        inflating = zlib.decompressobj()
        if len(inflating.decompress(data[start : start + number], 2 * most + 1)) > 2 * most:
            raise BadImageError("broken", "a piece of it unpacks to more pixels than the picture has")


def _by_pillow(data: bytes, page: Any) -> np.ndarray:
    name = getattr(page.compression, "name", page.compression)
    remedy = f"{name}-compressed {page.bitspersample}-bit TIFF; save it uncompressed or with deflate"
    if page.samplesperpixel > 1 and page.planarconfig == 2:
        raise BadImageError("unsupported", remedy)
    pixels = np.asarray(_pillow(data, remedy))
    if page.photometric == 0:
        raise BadImageError("unsupported", f"white-is-zero {remedy}")
    if page.samplesperpixel > 1 and page.bitspersample > 8 and (pixels.dtype != np.uint8 or pixels.max() < 128):
        raise BadImageError("unsupported", remedy)  # of 16 bits Pillow keeps the upper eight, which here hold little
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _pillow(data: bytes, remedy: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=["TIFF"])
        image.load()
        return image
    except Image.UnidentifiedImageError as error:
        raise BadImageError("unsupported", remedy) from error


def _nodata(page: Any) -> float | None:
    try:
        return float(str(page.tags[_NODATA].value).strip("\0 ")) if _NODATA in page.tags else None
    except ValueError:
        return None


def _orientation(page: Any) -> int:
    value = page.tags[_ORIENTATION].value if _ORIENTATION in page.tags else 1
    return int(value) if value in range(1, 9) else 1


def _png(data: bytes, max_pixels: int) -> Raster:
    """A PNG of 16-bit colour: of each number Pillow keeps one byte, so it is asked for each of the two."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    if width * height > max_pixels:
        raise BadImageError("too_large", f"{width}x{height} is over the budget of {max_pixels} pixels")
    mode = "RGBA" if data[25] == 6 else "RGB"
    high, low = (_bytes_of(data, f"{mode};16{order}").astype(np.uint16) for order in "BL")
    return Raster(high << 8 | low, True, 3 if mode == "RGBA" else None)


def _bytes_of(data: bytes, rawmode: str) -> np.ndarray:
    try:
        image: Any = Image.open(io.BytesIO(data), formats=["PNG"])
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]
        return np.asarray(image)
    except UNREADABLE as error:
        raise damaged(error) from error
