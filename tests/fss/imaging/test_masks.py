"""What becomes of each encoding of a mask: the table of docs/inputs.md, row by row."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fss.imaging import images, inputs, masks

THING = np.zeros((40, 60), np.uint8)
THING[8:25, 10:50] = 1
WHITE = THING * np.uint8(255)


def rgb(array=WHITE) -> Image.Image:
    return Image.fromarray(np.repeat(array[..., None], 3, 2))


def palette(indices, *colours) -> Image.Image:
    image = Image.fromarray(np.asarray(indices, np.uint8), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def painted(colour, ground=(0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(THING[..., None] == 1, colour, ground).astype(np.uint8))


def saved(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def alpha(colours, shown=WHITE) -> Image.Image:
    return Image.fromarray(np.dstack([np.broadcast_to(np.asarray(colours, np.uint8), (40, 60, 3)), shown]))


RED, GREEN = (200, 30, 10), (10, 200, 30)
ENCODINGS = {
    "0 and 1": Image.fromarray(THING),
    "0 and 255": Image.fromarray(WHITE),
    "0 and 7": Image.fromarray(THING * np.uint8(7)),
    "one bit": Image.fromarray(WHITE).convert("1"),
    "16 bits": Image.fromarray(WHITE.astype(np.uint16) * 257),
    "RGB": rgb(),
    "RGB of 0 and 1": rgb(THING),
    "red on black": painted(RED),
    "RGBA, opaque": rgb().convert("RGBA"),
    "white with alpha": alpha((255, 255, 255)),
    "red with half alpha": alpha(RED, WHITE // 2),
    "grey and alpha": Image.merge("LA", [Image.fromarray(WHITE), Image.new("L", (60, 40), 255)]),
    "cut-out": alpha(np.random.default_rng(0).integers(1, 255, (40, 60, 3))),
    "black and white palette": palette(THING, (0, 0, 0), (255, 255, 255)),
    "white and black palette": palette(1 - THING, (255, 255, 255), (0, 0, 0)),
    "black and red palette": palette(THING, (0, 0, 0), RED),
    "red and black palette": palette(1 - THING, RED, (0, 0, 0)),
    "VOC's palette": palette(THING * 15, *[(i // 2, i % 3 * 80, i) if i else (0, 0, 0) for i in range(256)]),
    "quantised": rgb().quantize(2),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_one_thing_is_read(name):
    image = ENCODINGS[name]
    kind = "PNG" if image.mode != "LA" else "TIFF"
    for source in (saved(image, kind), image):
        found = inputs.as_mask(source)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, THING)


FILES = {
    "GIF": saved(rgb(), "GIF"),
    "BMP": saved(rgb(), "BMP"),
    "JPEG": saved(rgb(), "JPEG", quality=80),
    "grey JPEG": saved(Image.fromarray(WHITE), "JPEG", quality=80),
    "WebP": saved(rgb(), "WEBP", lossless=True),
    "float TIFF": saved(Image.fromarray(THING * np.float32(0.97)), "TIFF"),
    "shares": saved(Image.fromarray(0.1 + THING * np.float32(0.8)), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_of_one_thing_is_read(name):
    np.testing.assert_array_equal(inputs.as_mask(FILES[name]), THING)


ARRAYS = {
    "bool": THING == 1,
    "int64": THING.astype(np.int64),
    "floats": THING.astype(np.float32),
    "shares": THING * 0.9,
    "a channel": THING[..., None],
    "a channel first": WHITE[None],
    "colours": np.asarray(rgb()),
    "float colours": np.asarray(rgb()) / 255,
    "a tensor": torch.from_numpy(THING).bool()[None],
    "a tensor of shares": torch.from_numpy(THING).float(),
    "a tensor of colours": torch.from_numpy(np.asarray(rgb()).copy()).permute(2, 0, 1),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_of_one_thing_is_read(name):
    np.testing.assert_array_equal(inputs.as_mask(ARRAYS[name]), THING)


def test_void_stands_beside_one():
    void = THING.copy()
    void[30:] = 255
    np.testing.assert_array_equal(inputs.as_mask(void), void)
    np.testing.assert_array_equal(inputs.as_mask(np.where(void == 255, 65535, void).astype(np.uint16)), void)
    assert not inputs.as_mask(THING * 0).any()
    assert inputs.as_mask(THING * 0 + 1).all()


@pytest.mark.parametrize("soften", ["blur", "resize"])
def test_soft_edges_are_cut_in_the_middle(soften, caplog):
    image = Image.fromarray(WHITE)
    soft = (
        image.filter(ImageFilter.GaussianBlur(1))
        if soften == "blur"
        else image.resize((30, 20), Image.Resampling.BOX).resize((60, 40), Image.Resampling.BILINEAR)
    )
    masks._said.clear()
    with caplog.at_level(logging.WARNING):
        found = inputs.as_mask(soft, "soft.png")
    assert (found != THING).mean() < 0.04
    assert "soft.png: " in caplog.text
    assert "values between black and white are cut at half of the brightest" in caplog.text


STORED, SECOND = Image.fromarray(WHITE), {"save_all": True, "append_images": [Image.fromarray(255 - WHITE)]}
REGIONS = THING.copy()
REGIONS[30:] = 2
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
REFUSED = {
    "classes": (REGIONS, "a mask of 0 and one other value, got [0, 1, 2]; keep one class, as 1"),
    "classes and void": (REGIONS * np.uint8(100) + (REGIONS == 0) * np.uint8(255), "a mask of 0 and one other value"),
    "colours": (NOISE, "a mask of black and one other colour, got 2400: ["),
    "two colours": (np.asarray(painted(RED, GREEN)), "a mask of black and one other colour, got 2"),
    "a palette of colours": (palette(THING, RED, GREEN), "a mask of black and one other colour, got 2"),
    "a photo as JPEG": (
        saved(Image.fromarray(NOISE), "JPEG"),
        "a mask that is nearly black and white, got many values",
    ),
    "small numbers as JPEG": (saved(Image.fromarray(THING), "JPEG"), "got many values up to 1; cut it at a threshold"),
    "numbers below 0": (THING.astype(int) - 1, "numbers from 0, got -1; make the rest 0 and the thing 1"),
    "several frames": (saved(STORED, "GIF", **SECOND), "one mask, got 2 pictures in one file; save each as a file"),
    "several pages": (saved(STORED, "TIFF", **SECOND), "one mask, got 2 pictures in one file; save each as a file"),
    "not finite": (THING * np.nan, "finite numbers, got nan or infinity"),
    "logits": (THING * 9.5 - 3.2, "shares from 0 to 1, got -3.2..6.3"),
    "both": (alpha(np.asarray(painted((255, 255, 255))), np.flip(WHITE, 0)), "a mask in colours or in transparency"),
    "a batch": (np.zeros((2, 1, 4, 4)), "(H, W) numbers or (H, W, 3) colours, got (2, 1, 4, 4) float64"),
    "text": (np.array([["a"]]), "(H, W) numbers or (H, W, 3) colours, got"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_read_is_refused_with_the_remedy(name):
    source, says = REFUSED[name]
    with pytest.raises(ValueError, match=r"^m\.png: ") as caught:
        inputs.as_mask(source, "m.png")
    assert says in str(caught.value)


def test_overviews_of_a_mask_are_left_out():
    """As in cloud-optimised GeoTIFFs."""
    overview = {"save_all": True, "append_images": [Image.fromarray(WHITE[::2, ::2])]}
    assert inputs.as_mask(saved(Image.fromarray(WHITE), "TIFF", **overview)).tolist() == THING.tolist()


def test_class_indices_are_the_numbers_that_are_written():
    labels = REGIONS * np.uint8(7)
    coloured, deep = palette(labels, *[(i, 0, 0) for i in range(20)]), labels.astype(np.uint16)
    files = [saved(image) for image in (Image.fromarray(labels), rgb(labels), coloured, Image.fromarray(deep))]
    for source in (*files, labels, labels.astype(float)):
        np.testing.assert_array_equal(inputs.as_labels(source), labels)
    for source, says in (
        (
            saved(Image.fromarray(labels), "JPEG"),
            "class indices, got a format that changes numbers a little; save the mask",
        ),
        (NOISE, "one channel of class indices, got colours; say whose they are in colours.json"),
        (labels / 3, "class indices, got fractions; round the mask"),
        (alpha(RED), "class indices, got transparency; save the mask without"),
    ):
        with pytest.raises(ValueError, match=says):
            inputs.as_labels(source)


def turned_photo(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(NOISE), "JPEG", exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_on_the_stored_pixels_is_turned_with_its_photo(orientation, caplog):
    photo, upright = turned_photo(orientation), images.turned(Image.fromarray(THING), orientation)
    masks._said.clear()
    with caplog.at_level(logging.WARNING):
        picture, found = inputs.as_support(photo, THING)
    assert found.shape == (picture.height, picture.width)
    if orientation >= 5:
        np.testing.assert_array_equal(found, np.asarray(upright))
        assert f"the stored pixels of a photo that EXIF orientation {orientation} turns; turned along" in caplog.text
        np.testing.assert_array_equal(inputs.as_support(photo, np.asarray(upright))[1], np.asarray(upright))
    else:
        np.testing.assert_array_equal(found, THING)  # it fits both ways: the rule is upright, and it is said
        assert ("is taken to be drawn on the turned photo" in caplog.text) == (orientation > 1)


def test_a_mask_with_exif_of_its_own_is_turned_by_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = saved(Image.fromarray(WHITE), "PNG", exif=exif)
    np.testing.assert_array_equal(inputs.as_support(turned_photo(6), mask)[1], np.rot90(THING, -1))


def test_sizes_have_to_fit():
    with pytest.raises(ValueError, match="photo: expected a mask of 60x40 like its image, got 59x40"):
        inputs.as_support(NOISE, THING[:, 1:], "photo")
