"""One network of each family of timm through every stage: labels, training, numbers, an exported model that answers."""

import numpy as np
import pytest
from PIL import Image

from cluster.engine.run import Run
from cluster.stages import STAGES
from cluster.training import loop
from fss.segmenter import Segmenter, find
from tests.cluster import processes
from tests.cluster.here import Here

FAMILIES = {
    "timm/mobilenetv4_conv_small_035": ("backbone.size=97", "backbone.debias=0.1"),
    "timm/vit_tiny_patch16_224": ("backbone.size=96", "backbone.levels=[4,8,12]"),
    "timm/convnext_atto": ("backbone.size=96",),
    "timm/resnet18": ("backbone.size=97",),
    "timm/swin_s3_tiny_224": ("backbone.size=96",),
    "timm/vit_small_patch16_dinov3_qkvb": ("backbone.size=96", "backbone.debias=0.49"),
    "timm/eva02_tiny_patch14_224": ("backbone.size=98",),
    "timm/vit_small_patch14_reg4_dinov2": ("backbone.size=98",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_the_family_goes_all_the_way(configure, photos, tmp_path, monkeypatch, name):
    monkeypatch.setattr(loop, "train", processes.train)
    run = Run(configure(tmp_path, f"backbone={name}", "train.steps=4", *FAMILIES[name]), STAGES)
    run.__dict__["pool"] = Here()
    assert run.ensure("evaluate").files
    segmenter = Segmenter.load(find(tmp_path), "cpu")
    image = Image.open(sorted((photos / "JPEGImages").glob("*.jpg"))[0])
    mask = np.zeros((image.height, image.width), np.uint8)
    mask[: image.height // 2] = 1
    answer = segmenter.probabilities(image, supports=[image], masks=[mask])
    assert answer.shape == (image.height, image.width)
    assert answer.std() > 0
