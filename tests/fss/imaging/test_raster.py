"""Numbers become light by one rule: deep, planar, white-is-zero and many-banded files, nodata, bands and ranges."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from fss import shards
from fss.imaging import images, intake, raster
from fss.imaging.colour import Reading, light
from fss.imaging.images import BadImageError

RAMP = np.stack(np.broadcast_arrays(np.arange(40)[:, None] * 6, np.arange(48) * 5, 90), 2).astype(np.uint8)
GREY = RAMP[..., 0] // 2 + RAMP[..., 1] // 2


def tiff(array, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png16(array) -> bytes:
    """A PNG of 16 bits a sample, which Pillow does not write in colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, bands = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def shown(data: bytes, *reading) -> np.ndarray:
    return np.asarray(images.decode(data, reading=Reading(*reading))).astype(int)


def difference(data: bytes, expected, *reading) -> int:
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(expected)).convert("RGB")).astype(int)
    found = shown(data, *reading)
    assert found.shape == expected.shape
    return int(np.abs(found - expected).max())


TWELVE = (RAMP.astype(np.uint16) << 4) | (RAMP >> 4)
SIXTEEN = RAMP.astype(np.uint16) * 257
COLOUR = {
    "16-bit PNG": png16(SIXTEEN),
    "12 bits in a PNG": png16(TWELVE),
    "16-bit TIFF": tiff(SIXTEEN, photometric="rgb"),
    "12 bits in a TIFF": tiff(TWELVE, photometric="rgb"),
    "deflate": tiff(SIXTEEN, photometric="rgb", compression="deflate", predictor=True),
    "big-endian tiles": tiff(SIXTEEN, photometric="rgb", tile=(16, 16), byteorder=">"),
    "planes": tiff(np.moveaxis(SIXTEEN, 2, 0), photometric="rgb", planarconfig="separate"),
    "8-bit planes": tiff(np.moveaxis(RAMP, 2, 0), photometric="rgb", planarconfig="separate"),
    "floats": tiff(RAMP / np.float32(255), photometric="rgb"),
    "opaque alpha": png16(np.dstack([SIXTEEN, np.full((40, 48), 65535, np.uint16)])),
    "near infrared": tiff(np.dstack([RAMP, GREY]), photometric="rgb", extrasamples=["unspecified"]),
    "near infrared that says alpha": tiff(np.dstack([RAMP, GREY]), photometric="rgb", extrasamples=["unassalpha"]),
    "three bands": tiff(np.moveaxis(TWELVE, 2, 0), photometric="minisblack", planarconfig="separate"),
}


@pytest.mark.parametrize("kind", COLOUR)
def test_colours_come_out_as_they_were(kind):
    assert difference(COLOUR[kind], RAMP) <= 1


HOUNSFIELD = (GREY.astype(np.int16) - 100) * 10
GREYS = {
    "16 bits": tiff(GREY.astype(np.uint16) * 257),
    "white is zero": tiff(65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite"),
    "8-bit white is zero": tiff(255 - GREY, photometric="miniswhite"),
    "float64": tiff(GREY / 255),
    "signed, over its range": tiff(HOUNSFIELD),
}


@pytest.mark.parametrize("kind", GREYS)
def test_greys_come_out_as_they_were(kind):
    stretched = (GREY - GREY.min()) / (GREY.max() - GREY.min()) * 255
    expected = stretched.astype(np.uint8) if "signed" in kind else GREY
    assert difference(GREYS[kind], expected) <= (12 if "signed" in kind else 1)  # half a per cent at each end aside


def test_transparency_is_laid_over_white_and_may_be_multiplied_already():
    alpha = np.where(np.arange(48) < 24, 255, 0).astype(np.uint8) * np.ones((40, 1), np.uint8)
    expected = np.where(alpha[..., None] == 255, RAMP, 255).astype(np.uint8)
    assert difference(tiff(np.dstack([RAMP, alpha]), photometric="rgb", extrasamples=["unassalpha"]), expected) <= 1
    multiplied = np.where(alpha[..., None] == 255, RAMP, 0).astype(np.uint8)
    assert (
        difference(tiff(np.dstack([multiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"]), expected) <= 1
    )


def test_transparency_of_all_is_left_out():
    alpha = np.zeros((40, 48), np.uint16)
    deep = np.dstack([RAMP.astype(np.uint16) * 257, alpha])
    assert difference(tiff(deep, photometric="rgb", extrasamples=["unassalpha"]), RAMP) <= 1


@pytest.mark.parametrize("number", [-9999, -3.4028235e38, np.nan, np.inf, 77])
def test_nodata_is_black_and_does_not_stretch_the_rest(number):
    values = GREY / np.float32(255)
    values[:10, :10] = number
    tag = [(42113, "s", 0, "77", True)] if number == 77 else []
    found = shown(tiff(values, extratags=tag))[..., 0]
    assert not found[:10, :10].any()
    assert np.abs(found[10:, 10:] - GREY[10:, 10:]).max() <= 1


def test_pictures_without_information_have_a_reason():
    empty = np.full((40, 40), -9999, np.float32)
    half = empty.copy()
    half[20:] = 5
    for array, reason in ((empty, "no_data"), (half, "constant")):
        with pytest.raises(BadImageError, match=reason):
            images.decode(tiff(array))
    data = tiff(empty)
    digest = intake.Digest("x.tif", len(data), shards.sha256(data))
    _, (row,) = intake.build_shard([digest], lambda _: data, seed=0)
    assert (row.status, row.reason) == ("rejected", "no_data: no pixel holds a number: all are nodata or not finite")


EVEN = GREY // 6 * 6
MANY = tiff(np.stack([EVEN * np.uint16(i) for i in range(1, 14)]), photometric="minisblack", planarconfig="separate")


def test_bands_without_names_are_asked_for():
    with pytest.raises(
        BadImageError, match=r"bands: nothing says which of 13 bands .* set bands=\[3,2,1\] or so, in a c"
    ):
        images.decode(MANY)
    with pytest.raises(BadImageError, match=r"bands: bands= asks for band 14, there are 13"):
        images.decode(MANY, reading=Reading((14, 2, 1)))
    assert shown(MANY, (3, 2, 1), (0, 765))[5, 7].tolist() == [EVEN[5, 7], EVEN[5, 7] * 2 // 3, EVEN[5, 7] // 3]
    assert difference(MANY, EVEN, (1,), (0, 255)) == 0
    false = RAMP[..., ::-1]
    assert difference(COLOUR["near infrared"], np.dstack([GREY, false[..., 1:]]), (4, 2, 1)) == 0


def test_a_range_says_what_is_black_and_white():
    window = np.clip((HOUNSFIELD + 100.0) / 400, 0, 1) * 255
    assert np.abs(shown(tiff(HOUNSFIELD), None, (-100, 300))[..., 0] - window).max() <= 1
    deep = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 10).save(deep, "PNG")
    assert difference(deep.getvalue(), GREY, None, (0, 2550)) <= 1


def test_bands_and_range_shape_what_the_corpus_stores():
    limits = intake.Limits(bands=(3, 2, 1), range=(0, 765))
    found, _ = intake.accept(MANY, limits, 512)
    assert np.asarray(found.image)[5, 7].tolist() == [EVEN[5, 7], EVEN[5, 7] * 2 // 3, EVEN[5, 7] // 3]


def test_files_are_bounded_before_they_are_unpacked():
    with pytest.raises(BadImageError, match=r"too_large: 48x40 in 13 bands are 49920 bytes, over the budget"):
        images.decode(MANY, max_pixels=12_000)
    whole = tiff(SIXTEEN, photometric="rgb")
    with pytest.raises(BadImageError, match="truncated"):
        images.decode(whole[:-2000])
    packed = tiff(np.zeros((400, 400), np.float32), compression="deflate", rowsperstrip=400)
    small = packed.replace(struct.pack("<HHII", 257, 4, 1, 400), struct.pack("<HHII", 257, 4, 1, 4))
    small = small.replace(struct.pack("<HHIHH", 257, 3, 1, 400, 0), struct.pack("<HHIHH", 257, 3, 1, 4, 0))
    small = small.replace(struct.pack("<HHIHH", 278, 3, 1, 400, 0), struct.pack("<HHIHH", 278, 3, 1, 4, 0))
    assert small != packed
    with pytest.raises(BadImageError, match="broken: a piece of it unpacks to more pixels than the picture has"):
        images.decode(small)


def test_compressions_that_pillow_alone_knows():
    """It reads grey right, and the upper eight bits of colour, which are enough where all sixteen are in use."""
    buffer = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 16).save(buffer, "TIFF", compression="tiff_lzw")
    assert difference(buffer.getvalue(), GREY) <= 1
    assert difference(lzw(SIXTEEN + np.uint16(6)), RAMP) <= 1
    with pytest.raises(
        BadImageError, match=r"unsupported: LZW-compressed 16-bit TIFF; save it uncompressed or with defl"
    ):
        images.decode(lzw(TWELVE))


def lzw(array) -> bytes:
    """A TIFF whose one strip is LZW without any compression: every byte as a code of nine bits."""
    raw = array.astype("<u2").tobytes()
    codes = []
    for at in range(0, len(raw), 200):  # the table is cleared before codes need ten bits
        codes += [256, *raw[at : at + 200]]
    bits = np.array([[code >> shift & 1 for shift in range(8, -1, -1)] for code in [*codes, 257]], np.uint8)
    strip = np.packbits(bits.reshape(-1)).tobytes()
    height, width, bands = array.shape
    end = 8 + 2 + 10 * 12 + 4
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, end), (259, 3, 1, 5), (262, 3, 1, 2),
               (273, 4, 1, end + 6), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(strip)),
               (284, 3, 1, 1)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + strip


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_memory_is_a_few_bytes_a_pixel(compression):
    data = tiff(np.random.default_rng(0).random((2000, 2000), np.float32), compression=compression)
    images.decode(data)
    tracemalloc.start()
    images.decode(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < (8 if compression is None else 13) * 2000 * 2000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_files_are_turned_like_others(orientation):
    data = tiff(SIXTEEN, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    plain = tiff(RAMP, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    upright = images.turned(Image.fromarray(RAMP), orientation)
    for one in (data, plain):
        assert np.abs(shown(one) - np.asarray(upright)).max() <= 1
        assert images.upright_size(one) == upright.size


def test_bytes_are_light_already():
    assert light(RAMP) is RAMP
    assert raster.read(b"", 10) is None


def test_complex_numbers_are_refused():
    with pytest.raises(BadImageError, match="unsupported: complex numbers; save what is to be seen"):
        images.decode(tiff((GREY + 1j * GREY).astype(np.complex64)))


def test_half_floats_are_shares_like_others():
    assert difference(tiff((RAMP / 255).astype(np.float16), photometric="rgb"), RAMP) <= 1


def test_what_a_damaged_file_makes_the_reader_log_stays_inside(caplog):
    with pytest.raises(BadImageError):
        images.decode(b"II*\0\0\0\0\0")
    assert caplog.text == ""
