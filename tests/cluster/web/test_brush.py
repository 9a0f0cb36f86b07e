"""Masks in Label Studio's encoding: as its own library writes and reads them."""

import numpy as np
import pytest

from cluster.web import brush

SMALL = np.uint8([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
#: What `label_studio_sdk.converter.brush.encode_rle`, version 2.1.2, writes of SMALL, opaque white on nothing.
WRITTEN = [0, 0, 0, 60, 57, 27, 254, 23, 0, 183, 255, 133, 192, 0]
#: The same with 7 and 9 in place of two zeros, which it writes as values that stand alone.
FAINT = [0, 0, 0, 60, 57, 27, 252, 64, 0, 3, 198, 0, 0, 77, 224, 11, 127, 248, 92, 0]
#: A block of three values in a row, as the page of Label Studio writes what does not repeat: 3 pixels, the middle seen.
LITERAL = "".join(
    [f"{12:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    + ["001" + f"{11:04b}"]
    + [f"{value:08b}" for value in (0, 0, 0, 0, 9, 9, 9, 255, 0, 0, 0, 127)]
)


def masks():
    """Nothing, all, noise, and a run that is longer than 16 bits can say."""
    generator = np.random.default_rng(0)
    yield np.zeros((1, 1), np.uint8)
    yield np.ones((3, 7), np.uint8)
    yield (generator.random((40, 50)) > 0.5).astype(np.uint8)
    yield np.repeat(np.uint8([1, 0, 1]), [1, 200 * 200, 3]).reshape(4, -1)


@pytest.mark.parametrize("mask", [*masks()], ids=["pixel", "full", "noise", "long"])
def test_what_was_encoded_is_decoded(mask):
    height, width = mask.shape
    np.testing.assert_array_equal(brush.decode(brush.encode(mask), (width, height)), mask)


def test_it_is_label_studios_own():
    assert brush.encode(SMALL) == WRITTEN
    np.testing.assert_array_equal(brush.decode(WRITTEN, (5, 3)), SMALL)
    np.testing.assert_array_equal(brush.decode(FAINT, (5, 3)), SMALL)


def test_values_that_do_not_repeat_are_read():
    data = np.packbits(np.frombuffer(LITERAL.encode(), np.uint8) - ord("0")).tolist()
    np.testing.assert_array_equal(brush.decode(data, (3, 1)), [[0, 1, 0]])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (WRITTEN[:8], "one that ends too early"),
        ([], "one that ends too early"),
        ([255] * 20, "4294967295 values"),
        (["a"], "invalid literal"),
        ([300], "out of bounds"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_mask_of_a_brush_is_refused(data, why):
    with pytest.raises(ValueError, match=rf"rle: expected a brush's mask of 5x3, got .*{why}"):
        brush.decode(data, (5, 3))
