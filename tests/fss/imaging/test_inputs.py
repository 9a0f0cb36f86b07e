"""Images in whatever form: the same pixels, upright, or a plain word."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fss.imaging import inputs

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
GREY = RGB[..., 0]


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


COLOURS = {
    "bytes": png(Image.fromarray(RGB)),
    "an image": Image.fromarray(RGB),
    "a lazy image": Image.open(io.BytesIO(png(Image.fromarray(RGB)))),
    "RGBA": Image.fromarray(RGB).convert("RGBA"),
    "an array": RGB,
    "an array with alpha": np.dstack([RGB, np.full((20, 30), 255, np.uint8)]),
    "channels first": np.moveaxis(RGB, 2, 0),
    "shares of white": RGB / 255,
    "float levels": RGB.astype(np.float32),
    "16 bits": RGB.astype(np.uint16) * 257,
    "a tensor": torch.from_numpy(RGB).permute(2, 0, 1),
    "a tensor of shares": torch.from_numpy(RGB).permute(2, 0, 1) / 255,
}


@pytest.mark.parametrize("name", COLOURS)
def test_a_picture_is_the_same_in_every_form(name):
    found = inputs.as_image(COLOURS[name])
    assert (found.mode, found.size) == ("RGB", (30, 20))
    assert np.abs(np.asarray(found).astype(int) - RGB).max() <= 1


GREYS = {
    "L": Image.fromarray(GREY),
    "16 bits": Image.fromarray(GREY.astype(np.uint16) * 257),
    "float": Image.fromarray(GREY / np.float32(255)),
    "rows and columns": GREY,
    "a channel": GREY[..., None],
    "a tensor": torch.from_numpy(GREY.copy())[None],
}


@pytest.mark.parametrize("name", GREYS)
def test_grey_becomes_three_channels(name):
    found = np.asarray(inputs.as_image(GREYS[name])).astype(int)
    assert found.shape == (20, 30, 3)
    assert np.abs(found - GREY[..., None]).max() <= 1


def test_bits_are_black_and_white():
    assert np.asarray(inputs.as_image(GREY > 127)).max() == 255
    assert np.asarray(inputs.as_image(Image.fromarray(GREY > 127))).max() == 255


def test_a_photo_is_turned_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    path.write_bytes(png(Image.fromarray(RGB), exif=exif))
    for source in (path, str(path), Image.open(path), Image.open(path).convert("RGB"), inputs.as_image(path)):
        np.testing.assert_array_equal(np.asarray(inputs.as_image(source)), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (RGB - 128.5, "query: expected floats from 0 to 1 or 255, got -128.5..126.5; undo the normalisation"),
        (np.zeros((2, 3, 4, 5)), "query: expected (H, W) or (H, W, 3) numbers, got (2, 3, 4, 5) float64"),
        (np.zeros((0, 3, 3)), "query: expected (H, W) or (H, W, 3) numbers, got (0, 3, 3)"),
        ([1, 2], "query: expected a path, bytes, a Pillow image, an array or a tensor, got list"),
        (b"<html>", "query: unsupported: a web page, not an image"),
        ("nowhere.png", "expected an image at nowhere.png, there is no such file"),
        (np.full((4, 4), np.nan), "query: no_data: no pixel holds a number"),
    ],
    ids=["normalised", "batch", "empty", "list", "html", "missing", "nan"],
)
def test_what_is_no_image_is_named(source, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        inputs.as_image(source, "query")


TENSOR = torch.rand(3, 20, 30)
ODD = {
    "sparse": (TENSOR.to_sparse(), "sparse_coo"),
    "eight bits": (TENSOR.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "without content": (TENSOR.to("meta"), "on meta"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("read", [inputs.as_image, inputs.as_mask, inputs.as_labels])
def test_tensors_that_hold_no_plain_numbers_are_refused(read, name):
    tensor, says = ODD[name]
    with pytest.raises(ValueError, match=f"query: expected a dense tensor of numbers, got .*{says}"):
        read(tensor, "query")


def test_views_that_negate_are_read():
    """The imaginary part of a conjugate is such a view."""
    view = torch.complex(TENSOR, -TENSOR).conj().imag
    assert view.is_neg()
    np.testing.assert_array_equal(inputs.as_image(view), inputs.as_image(TENSOR))


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_pillow_images_without_a_pixel_are_refused(size):
    with pytest.raises(ValueError, match=f"query: expected an image of one pixel or more, got {size[0]}x{size[1]}"):
        inputs.as_image(Image.new("RGB", size), "query")
