"""Artefact tokens: those that are planted are found and replaced by hand's values, and nothing else is touched."""

import pytest
import torch

from fss import backbones
from fss.backbones.artefacts import mended
from tests.fss.backbones.noise import noise

VIT = "timm/vit_tiny_patch16_224"


def test_a_long_token_becomes_the_mean_of_its_neighbours_by_hand():
    tokens = noise(2, 6, 5, 7)
    planted = tokens.clone()
    planted[0, :, 2, 3] *= 20
    planted[1, :, 0, 0], planted[1, :, 0, 1] = 30, -30
    found = mended(planted, 4.0)
    expected = tokens.clone()
    around = [tokens[0, :, row, column] for row in (1, 2, 3) for column in (2, 3, 4) if (row, column) != (2, 3)]
    expected[0, :, 2, 3] = torch.stack(around).mean(dim=0)
    expected[1, :, 0, 0] = tokens[1, :, 1, :2].mean(dim=1)
    beside = [tokens[1, :, row, column] for row, column in ((0, 2), (1, 0), (1, 1), (1, 2))]
    expected[1, :, 0, 1] = torch.stack(beside).mean(dim=0)
    torch.testing.assert_close(found, expected)


def test_a_token_without_good_neighbours_becomes_the_mean_of_the_image():
    tokens = noise(1, 4, 8, 8)
    tokens[0, :, 2:5, 2:5] *= 50
    good = torch.ones(8, 8, dtype=torch.bool)
    good[2:5, 2:5] = False
    torch.testing.assert_close(mended(tokens, 10.0)[0, :, 3, 3], tokens[0][:, good].mean(dim=1))


class Noted(torch.nn.Module):
    """A block that adds a long note of its own to one token, as networks without registers do."""

    def forward(self, tokens, *_, **__):
        """See the class; the class token comes first, of 4 x 4 patches the one in the second row and third column."""
        note = torch.zeros_like(tokens)
        note[:, 1 + 6] = 100 * noise(tokens.shape[2], seed=5)
        return tokens + note


@pytest.mark.parametrize("level", ["low", "mid", "high"])
def test_a_note_that_a_network_keeps_in_a_token_is_not_seen(level):
    images = noise(1, 3, 64, 64)
    noted, healed = (backbones.build(VIT, levels=[4, 8, 12], artefacts=limit) for limit in (None, 4.0))
    for backbone in (noted, healed):
        backbone.net.model.blocks[3] = Noted()
    spotted, clean = (backbone(images)[level][0] for backbone in (noted, healed))
    mean, spot = clean[:, [0, 0, 0, 1, 1, 2, 2, 2], [1, 2, 3, 1, 3, 1, 2, 3]].mean(dim=1), (1, 2)
    assert torch.cosine_similarity(clean[:, *spot], mean, dim=0) > 0.9
    assert torch.cosine_similarity(spotted[:, *spot], mean, dim=0) < 0.7


def test_where_no_token_is_long_features_are_the_same():
    images = noise(2, 3, 64, 48)
    plain, mending = backbones.build(VIT), backbones.build(VIT, artefacts=50.0)
    for level, values in mending(images).items():
        torch.testing.assert_close(values, plain(images)[level])
    assert backbones.fingerprint(mending) != backbones.fingerprint(plain)


@pytest.mark.parametrize("name", ["timm/resnet18", "mobilenet_v2"])
def test_networks_without_tokens_refuse(name):
    with pytest.raises(ValueError, match=r"backbone.artefacts: expected none, for only transformers .*, got 3"):
        backbones.build(name, artefacts=3.0)
