"""Networks of timm: the features that it gives itself, levels and strides by the stated rule, official checkpoints."""

import sys

import fsspec
import pytest
import timm
import torch
from torch import nn

from fss import backbones
from fss.backbones import Backbone, LoadReport
from fss.backbones import timm as adapter
from fss.backbones.weights import load_state, renamed
from fss.imaging.images import normalise
from tests.fss.backbones import checkpoints
from tests.fss.backbones.noise import noise

RESNET, MOBILE = "timm/resnet18", "timm/mobilenetv4_conv_small_035"
CONVNEXT, SWIN = "timm/convnext_atto", "timm/swin_s3_tiny_224"
VIT, EVA = "timm/vit_tiny_patch16_224", "timm/eva02_tiny_patch14_224"
DINOV2, DINOV3 = "timm/vit_small_patch14_reg4_dinov2", "timm/vit_small_patch16_dinov3_qkvb"
SIGLIP, BEIT = "timm/vit_base_patch16_siglip_224.v2_webli", "timm/beit_base_patch16_224"


def shallow(name, depth=4):
    """A network of a large family with few blocks, as `build` would make it."""
    takes = {} if name == BEIT else {"dynamic_img_size": True}
    model = timm.create_model(name.removeprefix(adapter.PREFIX), num_classes=0, depth=depth, **takes)
    return Backbone(name, adapter.TimmNetwork(name, model=model), LoadReport("drawn"))


# ------------------------------------------------------------------------------------------------ features

#: Family: stride, (height, width), timm's indices of low, mid and high, whether through the final norm.
FAMILIES = {
    RESNET: (32, (65, 97), (2, 3, 4), False),
    MOBILE: (32, (65, 97), (2, 3, 4), False),
    CONVNEXT: (32, (64, 96), (1, 2, 3), False),
    SWIN: (32, (64, 96), (1, 2, 3), False),
    VIT: (16, (48, 64), (5, 8, 11), True),
    EVA: (14, (42, 56), (5, 8, 11), True),
    DINOV2: (14, (28, 42), (1, 2, 3), True),
    DINOV3: (16, (48, 64), (1, 2, 3), True),
    SIGLIP: (16, (32, 48), (1, 2, 3), True),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_timms_own(name):
    """Of other sizes than the network was trained on, not square, and of pixels normalised as its own data were."""
    stride, size, indices, normed = FAMILIES[name]
    few = name in (DINOV2, DINOV3, SIGLIP)
    backbone = shallow(name) if few else backbones.build(name, stride=stride)
    options = {"dynamic_img_size": True} if normed or name == SWIN else {}
    options |= {"depth": 4} if few else {}
    reference = timm.create_model(name.removeprefix(adapter.PREFIX), num_classes=0, **options).eval()
    reference.load_state_dict(backbone.net.loaded.state_dict(), strict=False)
    data = timm.data.resolve_model_data_config(reference)
    pixels = noise(1, 3, *size).sigmoid()
    own = (pixels - torch.tensor(data["mean"]).view(3, 1, 1)) / torch.tensor(data["std"]).view(3, 1, 1)
    with torch.no_grad():
        expected = reference.forward_intermediates(own, list(indices), norm=normed, intermediates_only=True)
    features = backbone(normalise(pixels))
    for level, values in zip(("low", "mid", "high"), expected, strict=True):
        coarser = values[..., ::2, ::2] if backbone.corners else nn.functional.avg_pool2d(values, 2)
        wanted = coarser if level == "mid" and not normed else values
        assert features[level].shape[1] == backbone.channels[level]
        torch.testing.assert_close(features[level], wanted, rtol=1e-4, atol=1e-4 * float(values.abs().max()))
    assert backbone.stride == stride
    assert backbone.interpolation == data["interpolation"]


@pytest.mark.parametrize("name", [RESNET, MOBILE, CONVNEXT, VIT])
def test_a_mirrored_image_has_mirrored_features(name):
    """With kernels and tables that are their own mirror images; dilated and enlarged grids too."""
    backbone = backbones.build(name, seed=1)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    if name == VIT:
        table = backbone.net.loaded.pos_embed[:, 1:].unflatten(1, (14, 14))
        table.copy_((table + table.flip(2)) / 2)
    images = noise(1, 3, 64 + backbone.corners, 96 + backbone.corners)
    plain, mirrored = backbone(images), backbone(images.flip(-1))
    for level, values in plain.items():
        assert (values - mirrored[level].flip(-1)).abs().max() < 1e-4 * values.abs().max()
        assert (values - values.flip(-1)).abs().max() > 1e-2 * values.abs().max()


def test_timms_dilation_keeps_the_strided_networks_values():
    images = noise(1, 3, 65, 65)
    coarse, fine = (backbones.build(RESNET, stride=stride)(images) for stride in (32, 8))
    for level in ("mid", "high"):
        values = coarse[level]
        assert (fine[level][..., ::4, ::4] - values).abs().max() < 1e-5 * values.abs().max()


@pytest.mark.parametrize("name", [MOBILE, CONVNEXT])
def test_where_timm_does_not_dilate_cells_are_enlarged(name):
    side = 64 + (name == MOBILE)
    images = noise(1, 3, side, side)
    coarse, fine = (backbones.build(name, stride=stride)(images)["high"] for stride in (32, 16))
    grid = (side + 15) // 16
    expected = nn.functional.interpolate(coarse, size=(grid, grid), mode="bilinear", align_corners=name == MOBILE)
    assert torch.equal(fine, expected)


# ------------------------------------------------------------------------------------------------ choices


def test_levels_can_be_chosen():
    images = noise(1, 3, 32, 32)
    usual, chosen = backbones.build(VIT), backbones.build(VIT, levels=[3, 6, 9])
    assert torch.equal(chosen(images)["mid"], usual(images)["low"])
    assert torch.equal(chosen(images)["high"], usual(images)["mid"])
    assert len(chosen.net.loaded.blocks) == 9
    assert chosen.levels == (3, 6, 9)
    assert backbones.fingerprint(chosen) != backbones.fingerprint(usual)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "timm/resnet81"}, r"unknown backbone timm/resnet81: expected one of the \d+ networks of timm; did"),
        ({"name": "timm/resnet18.nobody"}, "timm/resnet18.nobody: timm has no such network .*nobody"),
        ({"name": VIT, "stride": 8}, "timm/vit_tiny_patch16_224: stride must be one of 16, got 8"),
        ({"name": RESNET, "stride": 4}, "timm/resnet18: stride must be one of 8, 16, 32, got 4"),
        ({"name": VIT, "levels": [6, 9, 13]}, r"three blocks of 1 to 12 as levels .*got \[6, 9, 13\]; set backbone"),
        ({"name": MOBILE, "levels": [5, 4, 3]}, r"three stages of 1 to 5 as levels"),
        ({"name": "vgg16", "levels": [1, 2, 3]}, r"vgg16: expected no levels.* got \[1, 2, 3\]"),
        ({"name": "resnet18", "weights": "timm"}, "resnet18: timm has weights for its own networks alone; set"),
        ({"name": VIT, "weights": "torchvision"}, "torchvision has no weights for this backbone; give a file"),
    ],
)
def test_wrong_arguments_are_answered_with_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(**arguments)


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        (VIT, (48, 60), "multiples of 16, got 48 x 60: set the input size to 64"),
        (RESNET, (64, 64), "multiples of 32, and one pixel, got 64 x 64: set the input size to 65"),
        (CONVNEXT, (65, 64), "multiples of 32, got 65 x 64: set the input size to 64"),
    ],
)
def test_sizes_at_which_cells_would_lie_elsewhere_are_refused(backbone, size, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(backbone)(noise(1, 3, *size))


def test_a_network_of_one_size_says_so():
    backbone = shallow(BEIT, depth=3)
    with pytest.raises(ValueError, match="takes images of 224 x 224 only"):
        backbone(noise(1, 3, 96, 96))
    assert backbone(noise(1, 3, 224, 224))["high"].shape == (1, 768, 14, 14)


def test_random_weights_follow_the_seed_whatever_was_built_before():
    adapter._planned.cache_clear()
    a, b, c = (backbones.fingerprint(backbones.build(MOBILE, seed=seed)) for seed in (1, 1, 2))
    assert a == b != c


# ------------------------------------------------------------------------------------------------ weights


def test_timms_own_weights_are_downloaded_by_timm(monkeypatch):
    def rising(parameter):
        return torch.linspace(0.25, 0.5, parameter.numel()).view_as(parameter)

    def deliver(model, **_):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(rising(parameter))

    monkeypatch.setattr(timm.models._builder, "load_pretrained", deliver)
    backbone = backbones.build(MOBILE, "timm")
    assert all(torch.equal(parameter, rising(parameter)) for parameter in backbone.net.loaded.parameters())
    assert (backbone.report.missing, backbone.report.unexpected) == ((), ())


def test_timm_without_network_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    with pytest.raises(ValueError, match=r"could not download timm's weights \(Name or .*copy the file to a disk"):
        backbones.build(MOBILE, "timm")


def test_weights_of_hugging_faces_hub_have_an_address(monkeypatch, tmp_path):
    """`hf://` is read by its own file system: here one that holds a file."""
    given = backbones.build(MOBILE, seed=4)
    torch.save(given.net.loaded.state_dict(), tmp_path / "model.bin")
    hub = fsspec.get_filesystem_class("hf")
    assert hub.__module__.startswith("huggingface_hub")
    monkeypatch.setattr(hub, "_open", lambda self, path, *_, **__: (tmp_path / path.split("/")[-1]).open("rb"))
    built = backbones.build(MOBILE, "hf://owner/name/model.bin")
    assert backbones.fingerprint(built) == backbones.fingerprint(given)


#: Blocks of networks and of their checkpoints below: a third of them at most is looked at.
DEPTH = 3


def filled(name, state):
    """A shallow network of the name with the weights of a checkpoint, and the report."""
    net = shallow(name, DEPTH).net
    return net, load_state(name, net, renamed(adapter.TimmNetwork, state), "weights.pth")


def assert_complete(report, state, *ignored):
    left_out = {key for key in state if key.endswith(ignored)} if ignored else set()
    assert (report.missing, report.unexpected) == ((), ())
    assert set(report.ignored) == left_out
    assert set(report.matched) == set(state) - left_out


def test_dino_under_timms_name():
    state = checkpoints.dino(depth=DEPTH)
    net, report = filled("timm/vit_small_patch16_224.dino", state)
    assert_complete(report, state)
    assert all(torch.equal(state[key], tensor) for key, tensor in net.loaded.state_dict().items())


def test_a_position_table_of_another_size_is_fitted_by_timm():
    state = checkpoints.dino(grid=7, depth=DEPTH) | checkpoints.mask()
    net, report = filled("timm/vit_small_patch16_224.dino", state)
    assert_complete(report, state, "mask_token")
    assert torch.equal(net.loaded.pos_embed[:, :1], state["pos_embed"][:, :1])
    assert net.loaded.pos_embed.shape == (1, 1 + 14**2, checkpoints.DIM)


@pytest.mark.parametrize("theirs", [dict, lambda state: checkpoints.hugging_face(state, dinov2=True)])
def test_dinov2_with_registers_under_timms_name(theirs):
    """timm has the first row of the table within the class token."""
    official = checkpoints.dino(14, 37, registers=4, layer_scale=True, depth=DEPTH) | checkpoints.mask()
    state = theirs(official)
    net, report = filled(DINOV2, state)
    assert_complete(report, state, "mask_token")
    assert torch.equal(net.loaded.reg_token, official["register_tokens"])
    assert torch.equal(net.loaded.cls_token, official["cls_token"] + official["pos_embed"][:, :1])


@pytest.mark.parametrize("wrapper", ["", "teacher.backbone."])
def test_dinov3_under_timms_name(wrapper):
    official = checkpoints.dinov3(DEPTH)
    state = {wrapper + key: tensor for key, tensor in official.items()}
    net, report = filled(DINOV3, state)
    assert_complete(report, state, "mask_token", "periods", "bias_mask")
    own = net.loaded.state_dict()
    assert torch.equal(own["reg_token"], official["storage_tokens"])
    assert torch.equal(own["blocks.2.gamma_2"], official["blocks.2.ls2.gamma"])
    assert torch.equal(own["blocks.2.attn.v_bias"], official["blocks.2.attn.qkv.bias"][2 * checkpoints.DIM :])


def test_hugging_faces_dinov3_is_the_same():
    official = checkpoints.dinov3(DEPTH)
    state = checkpoints.hugging_face_dinov3(official)
    net, report = filled(DINOV3, state)
    assert_complete(report, state, "mask_token")
    expected = filled(DINOV3, official)[0].state_dict()
    assert all(torch.equal(expected[key], tensor) for key, tensor in net.state_dict().items())


def test_another_patch_is_another_network():
    with pytest.raises(ValueError, match="patches of 8 px, the network of 16: change the name"):
        filled("timm/vit_small_patch16_224.dino", checkpoints.dino(patch=8, grid=28, depth=DEPTH))


# ------------------------------------------------------------------------------------------------ without it


def test_only_networks_of_timm_need_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    backbones.build("resnet18")
    for name in (RESNET, "vit_small"):
        with pytest.raises(ValueError, match=rf"{name}: expected the package timm, .*unlabelled-fss\[timm\]"):
            backbones.build(name)
