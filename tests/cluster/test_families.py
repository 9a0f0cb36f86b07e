"""One network of each family of timm through the stages: labels, tasks, an index and numbers; without Ray."""

import pytest

from cluster.engine.run import Run
from cluster.stages import STAGES
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
def test_a_network_of_the_family_labels_and_is_measured(configure, tmp_path, name):
    run = Run(configure(tmp_path, f"backbone={name}", "model=prototype", *FAMILIES[name]), STAGES)
    run.__dict__["pool"] = Here()
    assert run.ensure("label").counts["regions"] > 0
    assert run.ensure("pair").counts["tasks"] > 0
    assert run.ensure("evaluate").counts["episodes"] > 0
