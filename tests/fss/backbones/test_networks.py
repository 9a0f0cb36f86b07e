"""Frozen backbones: grids, dilation and padding that keep values, nothing that moves."""

import pytest
import torch
import torchvision
from torch import nn

from fss import backbones
from fss.backbones.deeplab import FineDecoder
from fss.backbones.resnet import ResNet
from tests.fss.backbones.noise import noise

# ------------------------------------------------------------------------------------------------ grids


@pytest.mark.parametrize(
    ("name", "stride", "size", "low", "grid", "channels"),
    [
        ("resnet18", 8, 65, 9, 9, (128, 256, 512)),
        ("resnet18", 16, 65, 9, 5, (128, 256, 512)),
        ("resnet18", 32, 64, 8, 2, (128, 256, 512)),
        ("resnet50", 16, 65, 9, 5, (512, 1024, 2048)),
        ("resnet101", 8, 33, 5, 5, (512, 1024, 2048)),
        ("mobilenet_v2", 8, 65, 9, 9, (32, 96, 320)),
        ("mobilenet_v2", 16, 65, 9, 5, (32, 96, 320)),
        ("mobilenet_v2", 32, 65, 9, 3, (32, 96, 320)),
        ("deeplabv3", 16, 65, 9, 5, (512, 1024, 256)),
        ("deeplabv3plus", 16, 65, 9, 5, (512, 1024, 256)),
        ("vgg16", 8, 64, 8, 8, (256, 512, 512)),
        ("vgg16", 16, 64, 8, 4, (256, 512, 512)),
        ("vgg16", 32, 65, 8, 2, (256, 512, 512)),
        ("vit_small", 16, 48, 3, 3, (384, 384, 384)),
        ("vit_small", 8, 24, 3, 3, (384, 384, 384)),
        ("vit_base", 14, 28, 2, 2, (768, 768, 768)),
    ],
)
def test_every_level_has_the_documented_grid_and_channels(name, stride, size, low, grid, channels):
    backbone = backbones.build(name, stride=stride)
    features = backbone(noise(2, 3, size, size))
    assert (backbone.name, backbone.stride) == (name, stride)
    assert backbone.channels == dict(zip(("low", "mid", "high"), channels, strict=True))
    expected = {
        "low": (2, channels[0], low, low),
        "mid": (2, channels[1], grid, grid),
        "high": (2, channels[2], grid, grid),
    }
    assert {level: tuple(f.shape) for level, f in features.items()} == expected
    assert all(f.dtype == torch.float32 and torch.isfinite(f).all() for f in features.values())


def test_small_is_built_like_the_others():
    backbone = backbones.build("small")
    features = backbone(noise(1, 3, 64, 64))
    assert set(features) == set(backbone.channels) == {"low", "mid", "high"}
    assert all(features[level].shape[1] == width for level, width in backbone.channels.items())
    assert features["mid"].shape[-2:] == features["high"].shape[-2:]
    assert backbones.fingerprint(backbone) != backbones.fingerprint(backbones.build("small", seed=1))
    assert not any(p.requires_grad for p in backbone.parameters())


def assert_same_values(ours, reference):
    """Equal up to the rounding of float32 sums, which is relative to the largest value."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_dilation_keeps_the_strided_networks_values_on_its_grid(name):
    images = noise(1, 3, 65, 65)
    coarse, middle, fine = (backbones.build(name, stride=stride)(images) for stride in (32, 16, 8))
    assert torch.equal(coarse["low"], middle["low"])
    assert torch.equal(coarse["low"], fine["low"])
    for level in ("mid", "high"):
        assert coarse[level].std() > 1e-6
        assert_same_values(middle[level][..., ::2, ::2], coarse[level])
        assert_same_values(fine[level][..., ::4, ::4], coarse[level])


@pytest.mark.parametrize(
    ("name", "usual", "deep"),
    [
        ("resnet18", (4, 6, 8), (2, 4, 6)),
        ("resnet50_linear", (7, 13, 16), (3, 7, 13)),
        ("mobilenet_v2", (6, 13, 17), (3, 6, 13)),
    ],
)
def test_levels_can_be_taken_after_other_blocks(name, usual, deep, tmp_path):
    """What is low or mid in one is mid or high in the other, on its grid; blocks behind the last are not there."""
    images = noise(1, 3, 65, 65)
    whole, named, early = (backbones.build(name, levels=levels, seed=1) for levels in (None, usual, deep))
    assert whole.net.depth == usual[-1]
    features, fewer = whole(images), early(images)
    assert all(torch.equal(values, features[level]) for level, values in named(images).items())
    assert torch.equal(fewer["high"], features["mid"])
    assert torch.equal(fewer["mid"], features["low"][..., ::2, ::2])
    assert early.channels == {level: values.shape[1] for level, values in fewer.items()}
    assert fewer["low"].shape[-1] == 9
    assert sum(p.numel() for p in early.net.parameters()) < sum(p.numel() for p in whole.net.parameters())
    assert len({backbones.fingerprint(one) for one in (whole, named, early)}) == 3
    torch.save(whole.net.state_dict(), tmp_path / "whole.pth")
    loaded = backbones.build(name, str(tmp_path / "whole.pth"), levels=deep)
    assert torch.equal(loaded(images)["high"], features["mid"])
    assert loaded.report.ignored
    assert not loaded.report.unexpected


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 8), ("resnet18", 32), ("resnet50", 16)])
def test_a_linear_networks_levels_lack_their_last_relu_only(name, stride):
    """The same weights; below zero where the other is zero, so that every level's ReLU is the other's level."""
    images = noise(1, 3, 65, 65)
    plain, linear = (backbones.build(full, stride=stride, seed=2) for full in (name, f"{name}_linear"))
    for level, values in linear(images).items():
        assert values.min() < 0
        assert torch.equal(torch.relu(values), plain(images)[level])
    assert backbones.fingerprint(plain) != backbones.fingerprint(linear)


def test_dilated_vgg_keeps_the_values_of_conv5_3():
    images = noise(1, 3, 64, 64)
    coarse, middle, fine = (backbones.build("vgg16", stride=stride)(images) for stride in (32, 16, 8))
    assert middle["high"].std() > 1e-6
    assert_same_values(fine["high"][..., ::2, ::2], middle["high"])
    for level in ("mid", "high"):  # coarser than native: max-pooled
        assert torch.equal(nn.functional.max_pool2d(middle[level], 2), coarse[level])


def test_resnet_dilation_is_torchvisions_convention():
    with torch.random.fork_rng(devices=[]):
        reference = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        ours = ResNet("resnet50", 8)
    for stage in ("layer3", "layer4"):
        for theirs, mine in zip(getattr(reference, stage).modules(), getattr(ours, stage).modules(), strict=True):
            if isinstance(theirs, nn.Conv2d) and theirs.kernel_size == (3, 3):
                assert (theirs.stride, theirs.dilation, theirs.padding) == (mine.stride, mine.dilation, mine.padding)


def test_deeplab_is_torchvisions_before_its_last_layer(tmp_path):
    """Weights of the whole network; its classifier and its auxiliary one are left out without complaint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, aux_loss=True, num_classes=3
        ).eval()
    torch.save(reference.state_dict(), tmp_path / "deeplab.pth")
    ours = backbones.build("deeplabv3", str(tmp_path / "deeplab.pth"), stride=8)
    images = noise(1, 3, 65, 65)
    with torch.no_grad():
        expected = nn.Sequential(*list(reference.classifier)[:-1])(reference.backbone(images)["out"])
    assert_same_values(ours(images)["high"], expected)
    assert ours.report.unexpected == ()
    assert {key.partition(".")[0] for key in ours.report.ignored} == {"classifier", "aux_classifier"}


def test_the_decoder_of_deeplab_looks_at_fine_features_around_each_cell():
    """A change of fine features far from the cells of the coarse grid's corner leaves it; one beside it does not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = FineDecoder(nn.Conv2d(2048, 256, 1), 16).eval()
    coarse, fine = noise(1, 2048, 3, 3), noise(1, 256, 9, 9, seed=1)
    moved = fine.clone()
    moved[..., 1, 1] += 1
    with torch.no_grad():
        before, after = decoder(coarse, fine), decoder(coarse, moved)
        context = nn.functional.interpolate(decoder.aspp(coarse), size=(9, 9), mode="bilinear", align_corners=True)
    assert before.shape == (1, 256, 3, 3)
    assert torch.equal(before[..., 1:, :], after[..., 1:, :])
    assert not torch.equal(before[..., 0, 0], after[..., 0, 0])
    assert torch.allclose(context[..., ::4, ::4], decoder.aspp(coarse), atol=1e-5)  # cells stay where they are


def mirror_error(name, size, stride=16):
    """Largest relative change when image and features are both mirrored, with kernels made mirror-symmetric."""
    backbone = backbones.build(name, stride=stride)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    images = noise(1, 3, size, size)
    plain, mirrored = backbone(images), backbone(images.flip(-1))
    return max(float((plain[k] - mirrored[k].flip(-1)).abs().max() / plain[k].abs().max()) for k in plain)


@pytest.mark.parametrize(
    ("name", "exact", "shifted"), [("resnet18", 97, 96), ("mobilenet_v2", 97, 96), ("vgg16", 64, 72)]
)
def test_feature_centres_are_symmetric_at_the_documented_sizes_only(name, exact, shifted):
    assert mirror_error(name, exact) < 1e-5
    assert mirror_error(name, shifted) > 1e-2


# ------------------------------------------------------------------------------------------------ frozen


def test_nothing_thaws_a_backbone_and_batch_statistics_stay():
    backbone = backbones.build("resnet18")
    before = backbones.fingerprint(backbone)
    holder = nn.Sequential(backbone, nn.Identity()).train()
    images = 5 + noise(2, 3, 33, 33)
    first = backbone(images)["high"]
    second = backbone.train(True)(images)["high"]
    assert holder.training
    assert not any(module.training for module in backbone.modules())
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbones.fingerprint(backbone) == before


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (backbones.fingerprint(backbones.build("mobilenet_v2", seed=seed)) for seed in (1, 1, 2))
    assert a == b != c
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert backbones.fingerprint(backbones.build("mobilenet_v2", seed=1)) == a
    torch.set_rng_state(state)


def test_fingerprint_sees_every_parameter_buffer_and_the_stride():
    backbone = backbones.build("resnet18")
    seen = {backbones.fingerprint(backbone), backbones.fingerprint(backbones.build("resnet18", stride=8))}
    backbone.net.layer4[1].bn2.running_var[-1] += 1e-3
    seen.add(backbones.fingerprint(backbone))
    backbone.net.conv1.weight[0, 0, 0, 0] += 1e-3
    seen.add(backbones.fingerprint(backbone))
    assert len(seen) == 4
    assert all(len(f) == 64 for f in seen)


# ------------------------------------------------------------------------------------------------ what users get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5O"}, r"unknown backbone 'resnet5O': expected one of deeplabv3, .*Did you mean 'resnet50'\?"),
        ({"name": "resnet18", "stride": 4}, "resnet18: stride must be one of 8, 16, 32, got 4"),
        ({"name": "vit_small", "stride": 32}, "vit_small: stride must be one of 8, 14, 16, got 32"),
        ({"name": "vit_small", "weights": "torchvision"}, "torchvision has no weights for this backbone; give a file"),
        ({"name": "vgg16", "weights": "no/such.pth"}, r"cannot read weights 'no/such.pth'.*accepted: \"random\""),
        ({"name": "vgg16", "weights": "imagenet"}, "cannot read weights 'imagenet'.*safetensors"),
        ({"name": "vgg16", "weights": "nosuch://x/y.pth"}, "cannot read weights 'nosuch://x/y.pth' .*fsspec"),
    ],
)
def test_wrong_arguments_are_answered_with_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(**arguments)


def test_images_in_another_layout_are_refused():
    backbone = backbones.build("vit_small")
    with pytest.raises(ValueError, match=r"expected normalised images \(B,3,S,S\).*\(2, 32, 32, 3\)"):
        backbone(torch.zeros(2, 32, 32, 3))
    with pytest.raises(ValueError, match="uint8"):
        backbone(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiples of 16, got 33 x 33: set the input size to 32"):
        backbone(torch.zeros(1, 3, 33, 33))


def test_torchvision_without_network_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match=r"resnet18: could not download https://.*copy the file to a disk"):
        backbones.build("resnet18", "torchvision")


# ------------------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("name", ["small", "mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_padding_changes_what_the_border_sees_and_no_shape_or_weight(name, mode):
    plain, padded = backbones.build(name, seed=3), backbones.build(name, seed=3, padding=mode)
    side = 128 if name == "small" else 129
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    before, after = plain(images)["low"], padded(images)["low"]
    assert before.shape == after.shape
    assert not torch.equal(before[..., 0, :], after[..., 0, :])
    weights = zip(plain.state_dict().items(), padded.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in weights)
    assert backbones.fingerprint(plain) != backbones.fingerprint(padded)


def test_a_constant_picture_has_constant_features_with_reflected_borders():
    features = backbones.build("mobilenet_v2", seed=3, padding="reflect")(torch.full((1, 3, 97, 97), 0.3))
    for level in features.values():
        torch.testing.assert_close(level, level[..., :1, :1].expand_as(level), rtol=1e-3, atol=1e-4)


def test_an_unknown_padding_names_the_others():
    with pytest.raises(ValueError, match="zeros, replicate, reflect"):
        backbones.build("resnet18", padding="mirror")
