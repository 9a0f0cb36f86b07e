"""What a backbone takes: operations counted by hand, and memory that a function is known to take."""

import time

import numpy as np
import pytest
from PIL import Image

from cluster.planning.network import growth, looked_at, operations
from fss import backbones
from fss.backbones.extractor import Extractor


@pytest.mark.parametrize(
    ("name", "width", "others"), [("vit_tiny_patch16_224", 192, 1), ("vit_small_patch16_dinov3_qkvb", 384, 5)]
)
def test_operations_of_a_transformer_by_hand(name, width, others):
    """Four blocks on 4 x 4 patches and other tokens: two for each weight and token, two for each pair of tokens."""
    extractor = Extractor(backbones.build(f"timm/{name}", levels=[1, 2, 4]), 64)
    cells, tokens = 16, 16 + others
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
