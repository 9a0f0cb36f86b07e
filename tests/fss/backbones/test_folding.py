"""Folded networks: no batch norm is left where one follows a convolution, and features stay what they were."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fss import backbones
from fss.backbones.folding import folded
from tests.fss.backbones.noise import noise
from tests.places import ROOT


def used(name: str, padding: str) -> backbones.Backbone:
    """A backbone whose batch norms have statistics and weights as training leaves them."""
    backbone = backbones.build(name, padding=padding).double()
    generator = torch.Generator().manual_seed(0)
    for key, values in backbone.state_dict().items():
        if key.endswith("running_mean"):
            values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
        elif key.endswith("running_var"):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return backbone


def norms(backbone: backbones.Backbone) -> list[str]:
    return [name for name, module in backbone.net.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "padding"),
    [("small", "zeros"), ("resnet18_linear", "zeros"), ("mobilenet_v2", "reflect"), ("deeplabv3plus", "zeros")],
)
def test_features_are_the_same_without_batch_norms(name, padding):
    images = noise(1, 3, *(64, 64) if name == "small" else (65, 65)).double()
    backbone = used(name, padding)
    before = backbones.fingerprint(backbone), norms(backbone)
    light = backbone.folded(images)
    for level, values in backbone(images).items():
        assert (light(images)[level] - values).abs().max() <= 1e-12 * values.abs().max()
    # Blocks of `small` take their sum once with and once without the norm, which therefore stays.
    assert len(norms(light)) == (8 if name == "small" else 0)
    assert (backbones.fingerprint(backbone), norms(backbone)) == before
    assert (light.channels, light.stride, light.corners) == (backbone.channels, backbone.stride, backbone.corners)


def test_a_network_without_batch_norms_is_itself():
    backbone = backbones.build("vgg16")
    assert backbone.folded(noise(1, 3, 64, 64)).net is backbone.net


class Rectified(nn.BatchNorm2d):
    """A batch norm that does more."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(values).relu()


def test_only_what_is_a_batch_norm_right_behind_a_convolution_is_folded():
    net = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), Rectified(5)
    )
    assert folded(net.eval(), noise(1, 3, 2, 2)) is net
    net = net.append(nn.Conv2d(5, 2, 1)).append(nn.BatchNorm2d(2)).eval()
    light = folded(net, noise(1, 3, 2, 2))
    assert [name for name, module in light.named_children() if isinstance(module, nn.Identity)] == ["7"]
    assert torch.allclose(light(noise(1, 3, 2, 2)), net(noise(1, 3, 2, 2)), atol=1e-6)


def test_torchs_compiler_stays_out():
    """Torch imports it, with sympy and triton, for dispatch modes that do not refuse."""
    code = (
        "import sys, torch; from fss import backbones\n"
        "backbones.build('small').folded(torch.zeros(1, 3, 64, 64))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
