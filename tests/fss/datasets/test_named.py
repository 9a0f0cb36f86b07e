"""Masks of a corpus by the names of its images: which file is whose, and how a set of them is read."""

import numpy as np
import pytest
from PIL import Image

from fss.datasets.parts.named import NamedMasks

SHOWN = np.kron(np.eye(2, dtype=np.uint8), np.ones((4, 4), np.uint8))


def save(folder, *names, values=SHOWN):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / name)


def read(folder, image="sub/a.jpg", names=(), size=(8, 8)):
    return NamedMasks(folder, "", "quality.masks", names).read(image, size)


@pytest.mark.parametrize("name", ["a.png", "sub/a.PNG", "a_mask.png", "sub/a-label.tiff", "a.jpg.png", "a_GT.bmp"])
def test_a_mask_is_called_like_its_image(tmp_path, name):
    save(tmp_path, name, "b.png", "other/a_mask.png")
    assert read(tmp_path).tolist() == SHOWN.tolist()
    assert read(tmp_path, "c.jpg") is None


@pytest.mark.parametrize("mask", ["a.png", "a_mask.png", "a_mask.tif"])
def test_the_image_beside_its_mask_is_not_it(tmp_path, mask):
    save(tmp_path, mask)
    save(tmp_path, "a.jpg", values=np.full((8, 8, 3), 90, np.uint8))
    assert read(tmp_path, "a.jpg").tolist() == SHOWN.tolist()


def test_two_masks_of_an_image_are_refused(tmp_path):
    save(tmp_path, "a.png", "a_mask.png")
    with pytest.raises(ValueError, match=r"expected one mask of sub/a\.jpg, got \S*a\.png and \S*a_mask\.png; take"):
        read(tmp_path)


def test_masks_are_shrunk_as_their_images(tmp_path):
    save(tmp_path, "a.png")
    assert read(tmp_path, size=(4, 4)).tolist() == SHOWN[::2, ::2].tolist()
    with pytest.raises(ValueError, match=r"a\.png: expected a mask of the shape .* 8x4 or larger, got 8x8; check"):
        read(tmp_path, size=(4, 8))


def test_black_and_white_masks_are_those_of_one_class_or_refused(tmp_path):
    save(tmp_path, "a.png", values=SHOWN * 255)
    assert read(tmp_path, names=("thing",)).tolist() == SHOWN.tolist()
    with pytest.raises(ValueError, match=r"expected class indices 1, 2, \.\.\. in masks like .*a\.png,"):
        read(tmp_path)
    assert read(tmp_path, names=None).tolist() == SHOWN.tolist()
