"""What a worker loads: heads of the backbone that they are measured on."""

import pytest
import torch

from cluster.evaluate.measure import MeasuredModel
from cluster.features.backbone import BackboneSpec
from fss import heads

SPEC = BackboneSpec("small", "random", 8, 64, seed=0)


@pytest.mark.parametrize("name", heads.anchors())
def test_anchors_have_seen_a_blank_image_of_their_backbone(name):
    head, extractor = MeasuredModel("anchor", SPEC, name).load(), SPEC.load()
    expected = heads.build(name, {}, extractor.backbone.channels, corners=extractor.backbone.corners)
    expected.see_blank(extractor.blank())
    assert head.taken > 0
    assert torch.equal(head.axes, expected.axes)
