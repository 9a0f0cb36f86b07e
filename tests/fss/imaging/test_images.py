"""Every kind of file that a scraped folder holds has a defined fate, and pixels survive the ways in and out."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fss.imaging import images
from fss.imaging.images import BadImageError, decode, decode_labels
from tests.fss.conftest import noise_image

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [9, 99, 200]]], np.uint8)


def noise(height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(array: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces its size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\1\0IDAT"
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_same_pixels(kind):
    assert np.array_equal(np.asarray(decode(encoded(noise(), kind))), noise())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_formats_give_nearly_the_same_pixels(kind):
    smooth = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 3, np.arange(48) * 4, 128), 2).astype(np.uint8)
    options = {} if kind == "GIF" else {"quality": 95}
    found = decode(encoded(smooth, kind, **options))
    assert (found.mode, found.size) == ("RGB", (48, 64))
    assert np.abs(np.asarray(found).astype(int) - smooth).mean() < 8


def test_multi_picture_jpegs_and_animations_give_their_first_frame():
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    for kind in ("MPO", "GIF", "TIFF"):
        found = decode(encoded(red.copy(), kind, save_all=True, append_images=[blue.copy()]))
        assert np.abs(np.asarray(found).astype(int) - (255, 0, 0)).max() <= 2, kind


def test_palettes_and_bits_become_colours():
    palette = Image.fromarray(COLOURS).quantize(6)
    assert np.array_equal(np.asarray(decode(encoded(palette))), COLOURS)
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert np.asarray(decode(encoded(bits))).tolist() == [[[0] * 3, [255] * 3]]


def test_transparency_is_laid_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert np.asarray(decode(encoded(rgba))).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    grey = Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), mode="LA")
    assert np.asarray(decode(encoded(grey)))[0, :, 0].tolist() == [0, 255]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 50, 60, 70])
    assert np.asarray(decode(encoded(palette, transparency=0))).tolist() == [[[255] * 3, [50, 60, 70]]]


def test_transparency_of_all_is_left_out():
    rgba = np.dstack([COLOURS, np.zeros(COLOURS.shape[:2], np.uint8)])
    assert np.array_equal(np.asarray(decode(encoded(rgba))), COLOURS)


def test_cmyk_jpegs_become_rgb():
    found = np.asarray(decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))).astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 4


def test_sixteen_bits_are_scaled_to_eight():
    """Pillow alone would show everything over 255 as white. Cameras fill 10 to 14 bits of the 16."""
    for top in (255, 1023, 4095, 16383):
        assert np.asarray(decode(encoded(np.array([[0, top // 2, top]], np.uint16))))[0, :, 0].tolist() == [0, 127, 255]
    assert np.asarray(decode(encoded(np.array([[0, 300]], np.uint16))))[0, :, 0].tolist() == [0, 75]  # of 1023
    deep = np.array([[0, 257 * 10, 257 * 100, 65535]], np.uint16)
    assert np.asarray(decode(encoded(deep)))[0, :, 0].tolist() == [0, 10, 100, 255]
    assert np.asarray(decode(encoded(deep, "TIFF")))[0, :, 1].tolist() == [0, 10, 100, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0, np.nan], [0, 128, 255, 0]),  # shares of white
        ([0.0, 64.0, 200.0, np.inf], [0, 64, 200, 0]),  # grey levels
        ([-1.0, 0.0, 1.0, np.nan], [0, 128, 255, 0]),  # anything else: its range
        ([100.0, 200.0, 500.0, 0.0], [51, 102, 255, 0]),
        ([np.nan, -9999.0, 0.5, 1.0], [0, 0, 128, 255]),  # nodata is left out of the range, and black
        ([-3.4028235e38, 0.0, 0.5, 1.0], [0, 0, 128, 255]),
    ],
)
def test_floats_are_shares_grey_levels_or_a_range(values, expected):
    data = encoded(np.array([values], np.float32), "TIFF")
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    found = decode(encoded(COLOURS, "PNG", exif=exif))
    assert np.array_equal(np.asarray(found), np.rot90(COLOURS, -1))


def test_a_corrupt_exif_block_does_not_cost_the_picture():
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0garbage that is no TIFF header")
    assert decode(data).size == (40, 24)


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (b"", "empty", "expected an image file, got 0 bytes"),
        (
            b"<html>not found</html>",
            "unsupported",
            "a web page, not an image; download the image itself",
        ),
        (b"\0" * 500, "unreadable", "not one of"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported", "a PostScript document"),
        (encoded(noise(), "JPEG")[:300], "unreadable", "not one of"),
        (encoded(noise(), "JPEG")[:900], "truncated", "image file is truncated"),
        (encoded(noise())[:900], "truncated", "image file is truncated"),
        (png_header(10_000, 10_000), "too_large", "10000x10000 is over the budget of 64000000 pixels"),
        (png_header(100_000, 100_000), "too_large", "exceeds limit"),
        (png_header(0, 5), "unreadable", ""),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else value,
)
def test_bad_files_are_refused_with_a_reason(data, reason, says):
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{reason}: ")
    assert says in str(caught.value)


def test_the_budget_of_pixels_is_the_callers():
    assert decode(encoded(noise()), max_pixels=960).size == (40, 24)
    with pytest.raises(
        BadImageError, match=r"40x24 is over the budget of 959 pixels; shrink it, or raise corpus\.max_pixels"
    ):
        decode(encoded(noise()), max_pixels=959)


ORIGINALS = [encoded(noise(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged TIFF
@settings(max_examples=60)
@given(
    st.sampled_from(ORIGINALS),
    st.lists(st.tuples(st.floats(0, 0.99), st.integers(0, 255)), max_size=3),
    st.floats(0, 1),
)
def test_damage_never_raises_anything_else(original, changes, keep):
    data = bytearray(original)
    for place, value in changes:
        data[int(place * min(len(data), 200))] = value
    reasons = set()
    for read in (decode, decode_labels):
        try:
            read(bytes(data[: int(keep * len(data))]), max_pixels=100_000)
        except BadImageError as error:
            reasons.add(error.reason)
    known = {"empty", "unsupported", "unreadable", "too_large", "truncated", "broken", "not_a_label_map"}
    assert reasons <= known | {"bands", "no_data", "constant"}


def test_fit_shrinks_the_longer_side_and_never_enlarges():
    image = Image.new("RGB", (640, 480))
    assert images.fit(image, 320).size == (320, 240)
    assert images.fit(image, 640) is image
    assert images.fit(image, 1000) is image
    assert images.fit(Image.new("RGB", (1000, 2)), 100).size == (100, 1)


def test_encoders_give_the_same_bytes_and_png_is_exact():
    image = Image.fromarray(noise())
    assert images.encode_jpeg(image) == images.encode_jpeg(image.copy())
    assert decode(images.encode_jpeg(image)).size == image.size
    for array in (noise(), noise()[..., 0], noise()[..., 0].astype(np.uint16) * 256, noise()[:, ::-1]):
        back = np.asarray(Image.open(io.BytesIO(images.encode_png(array))))
        assert np.array_equal(back, array)


def test_label_maps_keep_their_values():
    labels = np.array([[0, 1, 20, 255]], np.uint8)
    palette = Image.fromarray(labels, mode="P")
    palette.putpalette(list(range(256)) * 3)
    for data in (encoded(labels), encoded(palette)):
        assert decode_labels(data).tolist() == labels.tolist()
        assert decode_labels(data).dtype == np.int32
    assert decode_labels(encoded(np.array([[0, 300, 65535]], np.uint16))).tolist() == [[0, 300, 65535]]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode_labels(encoded(bits)).tolist() == [[0, 1]]


def grey_png(rows: list[list[int]], bits: int) -> bytes:
    """A greyscale PNG of 2 or 4 bits, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = b"".join(
        b"\0" + int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(len(row) * bits // 8, "big")
        for row in rows
    )
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("bits", [2, 4])
def test_label_maps_of_few_bits_keep_their_values(bits):
    """Pillow multiplies them by 85 and 17, which makes class 3 void."""
    rows = [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert decode_labels(grey_png(rows, bits)).tolist() == rows
    buffer = io.BytesIO()
    tiff = np.array(rows, np.uint8)
    packed = np.packbits(((tiff[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(2, -1), axis=1)
    Image.fromarray(packed).save(buffer, "TIFF")
    data = buffer.getvalue().replace(struct.pack("<HHIHH", 258, 3, 1, 8, 0), struct.pack("<HHIHH", 258, 3, 1, bits, 0))
    data = data.replace(struct.pack("<HHII", 256, 4, 1, packed.shape[1]), struct.pack("<HHII", 256, 4, 1, 4))
    data = data.replace(struct.pack("<HHIHH", 256, 3, 1, packed.shape[1], 0), struct.pack("<HHIHH", 256, 3, 1, 4, 0))
    assert decode_labels(data).tolist() == rows


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (encoded(noise()), "not_a_label_map", "got mode RGB with shape (24, 40, 3); convert colours to indices first"),
        (encoded(noise(), "JPEG"), "unreadable", "not one of PNG, GIF, BMP, TIFF"),
        (b"", "empty", "got 0 bytes"),
        (encoded(noise()[..., 0])[:300], "truncated", "image file is truncated"),
        (png_header(9_000, 9_000), "too_large", "9000x9000 is over the budget"),
        (png_header(100_000, 100_000), "too_large", "exceeds limit"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else value,
)
def test_label_maps_that_are_none_are_refused(data, reason, says):
    with pytest.raises(BadImageError) as caught:
        decode_labels(data)
    assert caught.value.reason == reason
    assert says in str(caught.value)


def test_the_networks_input_is_normalised_by_hand():
    pixel = images.to_tensor(Image.new("RGB", (30, 20), (255, 0, 51)), 8)
    assert pixel.shape == (3, 8, 8)
    assert pixel.dtype == torch.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert torch.allclose(pixel[:, 3, 3], torch.tensor(expected), atol=1e-6)
    assert torch.equal(pixel, pixel[:, :1, :1].expand_as(pixel))


def test_the_networks_input_keeps_rows_and_columns():
    tensor = images.to_tensor(Image.fromarray(COLOURS[:, :2]), 2)
    assert torch.allclose(tensor, images.normalise(torch.from_numpy(COLOURS[:, :2]).permute(2, 0, 1) / 255))
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, :20] = 255
    stretched = images.to_tensor(Image.fromarray(wide), 16)
    assert torch.allclose(stretched[0, :, :6], images.normalise(torch.ones(3, 16, 16))[0, :, :6])
    assert torch.allclose(stretched[0, :, 10:], images.normalise(torch.zeros(3, 16, 16))[0, :, 10:])


@pytest.mark.parametrize("name", images.INTERPOLATIONS)
@pytest.mark.parametrize("size", [(60, 45), (9, 30)])
def test_the_networks_input_is_stretched_as_it_is_told(name, size):
    picture = noise_image(4, size)
    expected = np.asarray(picture.resize((16, 16), Image.Resampling[name.upper()])).astype(int)
    found = images.to_bytes(picture, 16, name).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1
    normalised = images.normalise(torch.from_numpy(found).permute(2, 0, 1) / 255)
    assert torch.equal(images.to_tensor(picture, 16, name), normalised)


def test_normalise_takes_any_leading_axes():
    pixels = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images.normalise(pixels)[1, 2], images.normalise(pixels[1, 2]))
