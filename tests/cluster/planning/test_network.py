"""What a backbone takes: operations counted by hand, and memory that a function is known to take."""

import time

import numpy as np
import pytest
from PIL import Image

from cluster.planning.network import growth, looked_at, operations
from fss import backbones
from fss.backbones.extractor import Extractor


def test_operations_of_a_transformer_by_hand():
    """Four blocks of ViT-Ti on 4 x 4 patches and a class token: two for each weight and token, two for each pair."""
    extractor = Extractor(backbones.build("timm/vit_tiny_patch16_224", levels=[1, 2, 4]), 64)
    width, cells, tokens = 192, 16, 17
    patches = 2 * cells * 3 * 16 * 16 * width
    block = 2 * tokens * 12 * width**2 + 2 * 2 * tokens**2 * width
    assert operations(extractor) == patches + 4 * block


def test_operations_of_convolutions_follow_the_cells():
    """Of 97 and 193 pixels: 49 and 97 cells a side where they are finest, 7 and 13 where they are coarsest."""
    small, large = (operations(Extractor(backbones.build("mobilenet_v2"), size)) for size in (97, 193))
    assert 13**2 / 7**2 < large / small < 97**2 / 49**2


def test_the_memory_that_a_function_takes_is_seen():
    def take():
        held = np.ones(2**25)  # written, so that it is really there
        time.sleep(0.3)
        del held

    assert growth(take) == pytest.approx(2**28, rel=0.1)


def test_a_network_is_looked_at_while_it_computes():
    extractor = Extractor(backbones.build("small"), 64)
    pictures = [Image.new("RGB", (64, 64))]
    found = looked_at(extractor, lambda: extractor(pictures))
    assert (found.name, found.size, found.together, found.gpu) == ("small", 64, 1, 0)
    assert found.parameters == sum(weight.numel() for weight in extractor.backbone.parameters())
    assert found.working >= 0
