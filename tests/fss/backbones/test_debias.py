"""Position taken out of features: exactly the directions in which a black image's cells differ."""

import pytest
import torch
from torch import nn

from fss import backbones
from fss.backbones import Backbone, LoadReport
from fss.backbones.network import Network
from tests.fss.backbones.noise import noise

CHANNELS, PLACES = 16, 3


class Placed(Network):
    """Pixels in the first channels, and in some of the others, mixed, a code of the place."""

    stride, corners, channels = 1, False, {"high": CHANNELS}

    def __init__(self, size=8):
        super().__init__()
        self.mix = nn.Parameter(torch.linalg.qr(noise(CHANNELS, CHANNELS))[0])
        self.code = nn.Parameter(noise(1, PLACES, size, size, seed=2))

    def forward(self, images):
        """See the class."""
        content = torch.cat([images, images.square()], dim=1)
        code = self.code.expand(len(images), -1, -1, -1)
        rest = content.new_zeros(len(images), CHANNELS - 6 - PLACES, *images.shape[2:])
        return {"high": torch.einsum("dc,bchw->bdhw", self.mix, torch.cat([content, rest, code], dim=1))}


@pytest.fixture
def placed():
    return Backbone("placed", Placed(), LoadReport("made up"))


def test_what_is_left_is_what_the_image_shows(placed):
    images = noise(2, 3, 8, 8, seed=3)
    expected = placed.net(images)["high"] - torch.einsum(
        "dc,bchw->bdhw", placed.net.mix[:, -PLACES:], placed.net.code.expand(2, -1, -1, -1)
    )
    placed.take_position_out(8, PLACES / CHANNELS)
    cosine = torch.cosine_similarity(placed(images)["high"], expected, dim=1)
    assert placed.debias.high.shape == (CHANNELS, PLACES)
    assert cosine.min() > 0.98  # cells of length 1 lie on a sphere, a little off the plane of their codes
    assert torch.cosine_similarity(placed.net(images)["high"], expected, dim=1).min() < 0.9


def test_directions_are_orthonormal_and_nothing_is_left_along_them():
    backbone = backbones.build("timm/vit_tiny_patch16_224", seed=1)
    images = noise(1, 3, 64, 64)
    before = backbone(images)
    backbone.take_position_out(64, 0.05)
    for level, values in backbone(images).items():
        basis = backbone.debias.get_buffer(level)
        assert basis.shape == (192, 10)
        torch.testing.assert_close(basis.T @ basis, torch.eye(10))
        assert (basis.T @ values.flatten(2)).abs().max() < 1e-4 * values.abs().max()
        assert not torch.equal(values, before[level])


def test_where_a_black_image_is_the_same_everywhere_nothing_is_taken_out():
    backbone = backbones.build("mobilenet_v2", seed=3, padding="reflect")
    images = noise(1, 3, 97, 97)
    before = backbone(images)["low"]
    backbone.take_position_out(97, 0.5)
    assert backbone.debias.low.shape == (32, 0)
    assert torch.equal(backbone(images)["low"], before)


def test_the_share_is_part_of_the_fingerprint_and_none_changes_nothing(placed):
    plain = backbones.fingerprint(placed)
    placed.take_position_out(8, 0.0)
    assert (placed.debias, backbones.fingerprint(placed)) == (None, plain)
    placed.take_position_out(8, 0.2)
    assert backbones.fingerprint(placed) != plain


def test_an_exported_backbone_keeps_what_it_takes_out(placed):
    placed.take_position_out(8, 0.2)
    images = noise(1, 3, 8, 8, seed=4)
    again = Backbone("placed", Placed(), LoadReport("made up"))
    again.restore(placed.state_dict(), 0.2)
    assert torch.equal(again(images)["high"], placed(images)["high"])
    assert backbones.fingerprint(again) == backbones.fingerprint(placed)
