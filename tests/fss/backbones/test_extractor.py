"""Extraction: batches change nothing, images of any size go in, and the device is that of the backbone."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss import backbones
from fss.backbones import extractor as extract
from fss.backbones.extractor import Extractor
from fss.imaging import images
from tests.fss.conftest import noise_image


def test_a_batch_equals_the_backbone_on_the_networks_input(extractor):
    pictures = [noise_image(0), noise_image(1, (65, 65)), noise_image(2, (300, 20))]
    found = extractor(pictures)
    expected = extractor.backbone(torch.stack([images.to_tensor(p, 65) for p in pictures]))
    assert {level: tuple(v.shape) for level, v in found.items()} == {
        "low": (3, 4, 9, 9),
        "mid": (3, 5, 9, 9),
        "high": (3, 6, 9, 9),
    }
    for level, values in found.items():
        assert values.dtype == torch.float32
        assert torch.equal(values, expected[level])


@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_streaming_equals_one_by_one(extractor, number):
    pictures = [noise_image(i) for i in range(number)]
    found = list(extractor.stream(pictures))
    assert len(found) == number
    for picture, features in zip(pictures, found, strict=True):
        for level, values in extractor([picture]).items():
            assert torch.allclose(features[level], values[0], atol=1e-5)


def test_the_grid_is_counted_and_the_device_known(extractor):
    assert extractor.grid == 9
    assert extractor.device == torch.device("cpu")


def test_a_plain_image_gives_the_colour_by_hand(extractor):
    features = extractor([Image.fromarray(np.full((10, 10, 3), 255, np.uint8))])
    white = images.normalise(torch.ones(3, 1, 1))[:, 0, 0]
    expected = extractor.backbone.net.high[:, :, 0, 0] @ white
    assert torch.allclose(features["high"][0, :, 4, 4], expected, atol=1e-5)


def test_images_are_stretched_as_the_backbone_was_trained_or_is_told():
    picture = noise_image(2, (90, 70))
    for chosen, used in ((None, "bilinear"), ("bicubic", "bicubic")):
        extractor = Extractor(backbones.build("small", interpolation=chosen), 64)
        expected = extractor.features(images.to_tensor(picture, 64, used)[None])
        assert torch.equal(extractor([picture])["high"], expected["high"])
    other = backbones.build("small")
    assert backbones.fingerprint(other) != backbones.fingerprint(extractor.backbone)


def test_a_blank_image_is_black(extractor):
    black = extractor([Image.new("RGB", (65, 65))])
    assert all(torch.equal(values, black[level]) for level, values in extractor.blank().items())


def test_colours_of_cells_by_hand_beside_the_features(extractor):
    pixels = np.zeros((65, 65, 3), np.uint8)
    pixels[:, :20, 0], pixels[40:, 20:, 2] = 255, 51
    picture = Image.fromarray(pixels)
    (found,) = extractor.stream([picture], colour=True)
    expected = torch.zeros(3, 9, 9)
    expected[0, :, :3], expected[2, 5:, 3:] = 1.0, 0.2  # centres are the pixels 0, 8, ..., 64
    assert torch.allclose(found.pop("colour"), expected, atol=1e-6)
    assert all(torch.equal(values[0], found[level]) for level, values in extractor([picture]).items())


def test_devices_by_name():
    assert extract.device_by_name("cpu") == torch.device("cpu")
    assert extract.device_by_name("meta") == torch.device("meta")
    assert extract.device_by_name().type in {"cpu", "cuda"}
    for name in ("gpu0", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ValueError, match=f"device: expected auto, cpu or a GPU that is there, got '{name}' "):
            extract.device_by_name(name)


def test_features_that_are_not_finite_are_refused():
    wide = extract.Extractor(backbones.build("small"), size=64)
    images = torch.zeros(1, 3, 64, 64)
    assert wide.features(images)["high"].isfinite().all()
    with pytest.raises(ValueError, match=r"backbone small: features of level .*high are not finite"):
        wide.features(images + float("nan"))
