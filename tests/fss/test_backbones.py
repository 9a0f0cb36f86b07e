"""Frozen backbones: grids, dilation that keeps values, weights accounted for key by key, nothing that moves."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image
from torch import nn

from fss import backbones
from fss.backbones.deeplab import Decoder
from fss.backbones.resnet import ResNet
from fss.backbones.vit import ViT, build_vit

SHARED = Path(__file__).resolve().parents[3] / "shared"
SMALL_IS_HERE = (Path(backbones.__file__).parent / "small.py").exists()
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    """Tests here may draw from torch's global generator; what the library draws itself is tested on its own."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


@pytest.mark.skipif(not SMALL_IS_HERE, reason="fss/backbones/small.py is not in this checkout")
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
        decoder = Decoder(nn.Conv2d(2048, 256, 1), 16).eval()
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
        ({"name": "resnet5O"}, r"unknown backbone 'resnet5O': expected one of resnet18, .*Did you mean 'resnet50'\?"),
        ({"name": "resnet18", "stride": 4}, "resnet18: stride must be one of 8, 16, 32, got 4"),
        ({"name": "vit_small", "stride": 32}, "vit_small: stride must be one of 8, 14, 16, got 32"),
        ({"name": "vit_small", "weights": "torchvision"}, "torchvision has no weights for this backbone; give a file"),
        ({"name": "vgg16", "weights": "no/such.pth"}, r"cannot read weights 'no/such.pth' .*accepted: \"random\""),
        ({"name": "vgg16", "weights": "imagenet"}, "cannot read weights 'imagenet' .*safetensors"),
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


# ------------------------------------------------------------------------------------------------ weights


@pytest.fixture(scope="module")
def resnet18_state():
    """A torchvision-like state dict, classifier included, unlike the random one that `build` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return torchvision.models.resnet18(weights=None).state_dict()


def saved(folder, content, name="weights.pth"):
    path = str(folder / name)
    torch.save(content, path)
    return path


def assert_loaded(backbone, state):
    for key, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_torchvision_state_dict_loads_and_its_classifier_is_left_out(tmp_path, resnet18_state):
    backbone = backbones.build("resnet18", saved(tmp_path, resnet18_state))
    assert_loaded(backbone, resnet18_state)
    report = backbone.report
    assert (report.missing, report.unexpected, report.ignored) == ((), (), ("fc.weight", "fc.bias"))
    assert len(report.matched) == len(backbone.net.state_dict())
    assert str(report).endswith(f"{len(report.matched)} matched, 0 missing, 0 unexpected, 2 ignored")


def test_moco_checkpoint_gives_its_query_encoder(tmp_path, resnet18_state):
    moco = {f"module.encoder_q.{key}": tensor for key, tensor in resnet18_state.items()}
    moco |= {f"module.encoder_k.{key}": torch.zeros_like(tensor) for key, tensor in resnet18_state.items()}
    moco |= {"module.queue": torch.zeros(128, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    backbone = backbones.build("resnet18", saved(tmp_path, {"epoch": 200, "arch": "resnet18", "state_dict": moco}))
    assert_loaded(backbone, resnet18_state)
    assert len(backbone.report.ignored) == len(resnet18_state) + 4
    assert not backbone.report.unexpected


@pytest.mark.parametrize("prefix", ["module.base_encoder.", "module.", "backbone.", "module.backbone.", "net."])
def test_usual_prefixes_are_taken_off(tmp_path, resnet18_state, prefix):
    state = {prefix + key: tensor for key, tensor in resnet18_state.items() if not key.startswith("fc.")}
    assert_loaded(backbones.build("resnet18", saved(tmp_path, {"state_dict": state})), resnet18_state)


def test_our_own_state_dict_comes_back(tmp_path):
    backbone = backbones.build("mobilenet_v2", seed=5)
    safetensors.torch.save_file(backbone.state_dict(), tmp_path / "own.safetensors")
    again = backbones.build("mobilenet_v2", f"file://{tmp_path}/own.safetensors")
    assert backbones.fingerprint(again) == backbones.fingerprint(backbone)
    assert backbones.fingerprint(backbones.build("mobilenet_v2", seed=6)) != backbones.fingerprint(backbone)


def test_half_precision_weights_become_float32(tmp_path, resnet18_state):
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in resnet18_state.items()}
    backbone = backbones.build("resnet18", saved(tmp_path, half))
    assert backbone.net.conv1.weight.dtype == torch.float32
    assert torch.equal(backbone.net.conv1.weight, resnet18_state["conv1.weight"].half().float())


def test_every_unused_key_is_named_in_a_warning(tmp_path, resnet18_state, caplog):
    path = saved(tmp_path, resnet18_state | {"extra.weight": torch.zeros(1), "layer9.bias": torch.zeros(2)})
    with caplog.at_level(logging.WARNING, "fss.backbones.weights"):
        backbone = backbones.build("resnet18", path)
    assert backbone.report.unexpected == ("extra.weight", "layer9.bias")
    assert "extra.weight, layer9.bias" in caplog.text
    assert "fc.weight" not in caplog.text


def test_missing_keys_and_other_shapes_are_refused_by_name(tmp_path, resnet18_state):
    partial = {key: t for key, t in resnet18_state.items() if not key.startswith("layer4.1.")}
    with pytest.raises(
        ValueError, match=r"10 of 120 keys of resnet18 are missing, first layer4\.1\.conv1\.weight, .*plain"
    ):
        backbones.build("resnet18", saved(tmp_path, partial))
    with pytest.raises(ValueError, match=r"conv1.weight \(expected \(64, 3, 7, 7\), got \(64, 3, 3, 3\)\)"):
        backbones.build("resnet18", saved(tmp_path, resnet18_state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}))
    with pytest.raises(ValueError, match=r"keys of vgg16 are missing, first features\.0\.weight"):
        backbones.build("vgg16", saved(tmp_path, resnet18_state))


def test_missing_batch_counters_of_old_checkpoints_are_fine(tmp_path, resnet18_state):
    old = {key: tensor for key, tensor in resnet18_state.items() if not key.endswith("num_batches_tracked")}
    assert not backbones.build("resnet18", saved(tmp_path, old)).report.missing


def test_pickled_code_is_refused_and_never_run(tmp_path, resnet18_state):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return Path.touch, (marker,)

    for content in (resnet18_state | {"x": Attack()}, {"state_dict": resnet18_state, "args": argparse.Namespace(lr=1)}):
        with pytest.raises(ValueError, match=r"pickled Python objects .* run code .*safetensors"):
            backbones.build("resnet18", saved(tmp_path, content))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.pth", b""), ("text.pth", b"<html>404</html>"), ("cut.safetensors", b"\x08\0\0\0\0\0\0\0{}")],
)
def test_damaged_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        backbones.build("resnet18", str(tmp_path / name))


def test_files_of_other_things_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a state dict, got list"):
        backbones.build("resnet18", saved(tmp_path, [1, 2]))
    with pytest.raises(ValueError, match="but epoch are no tensors"):
        backbones.build("resnet18", saved(tmp_path, {"epoch": 3}))


# ------------------------------------------------------------------------------------------------ transformers


def vit_state(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        state = ViT("vit_small", **options).state_dict()
    return state


def test_dino_teacher_loads_without_its_head(tmp_path):
    state = vit_state(patch=8, native_grid=28)
    teacher = {f"backbone.{key}": tensor for key, tensor in state.items()} | {"head.mlp.0.weight": torch.zeros(2, 2)}
    path = saved(tmp_path, {"student": {"module.x": torch.zeros(1)}, "teacher": teacher, "epoch": 99})
    backbone = backbones.build("vit_small", path)
    assert_loaded(backbone, state)
    assert (backbone.stride, backbone.report.ignored) == (8, ("head.mlp.0.weight",))
    with pytest.raises(ValueError, match="checkpoint has patches of 8 px, got stride 16: set stride to 8"):
        backbones.build("vit_small", path, stride=16)


def test_dinov2_with_registers_layer_scale_and_chunked_blocks(tmp_path):
    state = vit_state(patch=14, native_grid=5, num_registers=4, layer_scale=True)
    chunked = {}
    for key, tensor in state.items():
        block = key.split(".")[1] if key.startswith("blocks.") else None
        chunked[key.replace(f"blocks.{block}.", f"blocks.{int(block) // 6}.{block}.") if block else key] = tensor
    backbone = backbones.build("vit_small", saved(tmp_path, chunked | {"mask_token": torch.zeros(1, 384)}))
    assert_loaded(backbone, state)
    assert backbone.report.ignored == ("mask_token",)
    assert backbone.net.register_tokens.shape == (1, 4, 384)
    features = backbone(noise(1, 3, 42, 56))
    assert {tuple(f.shape) for f in features.values()} == {(1, 384, 3, 4)}


def test_other_transformers_are_refused(tmp_path):
    path = saved(tmp_path, vit_state(native_grid=2) | {"cls_token": torch.zeros(1, 1, 768)})
    with pytest.raises(ValueError, match=r"another shape than in vit_small: cls_token \(expected \(1, 1, 384\)"):
        backbones.build("vit_small", path)
    with pytest.raises(ValueError, match=r"no 'patch_embed\.proj\.weight', so they are not of a DINO-like"):
        build_vit("vit_small", None, {"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 \+ n\*n rows .* got 7"):
        build_vit("vit_small", None, {"patch_embed.proj.weight": torch.zeros(1), "pos_embed": torch.zeros(1, 7, 384)})


def test_position_table_is_untouched_at_its_own_size_and_interpolated_elsewhere():
    with torch.random.fork_rng(devices=[]):
        vit = ViT("vit_small", native_grid=4)
    assert vit.position_table(4, 4) is vit.pos_embed
    ramp = torch.arange(4.0).view(1, 4, 1).expand(4, 4, 384)  # grows along x only
    with torch.no_grad():
        vit.pos_embed[0, 1:] = ramp.reshape(16, 384)
        grid = vit.position_table(8, 6)[0, 1:].unflatten(0, (8, 6))
        assert torch.equal(vit.position_table(8, 6)[:, :1], vit.pos_embed[:, :1])
    assert torch.allclose(grid, grid[:1].expand_as(grid), atol=1e-5)
    assert (grid[0, 1:, 0] > grid[0, :-1, 0]).all()


def test_attention_block_equals_the_textbook_formula():
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        attention = ViT("vit_small", native_grid=2).blocks[0].attn
        x = noise(1, 5, 384)
        q, k, v = attention.qkv(x).chunk(3, dim=-1)
        heads = []
        for h in range(6):
            part = slice(64 * h, 64 * h + 64)
            heads.append((q[..., part] @ k[..., part].transpose(1, 2) / 8).softmax(-1) @ v[..., part])
        torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, -1)), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ real weights


@pytest.fixture(scope="module")
def real():
    path = SHARED / "weights" / "mobilenet_v2_imagenet1k_fp16.pth"
    if not path.exists():
        pytest.skip(f"real weights are not there: {path}")
    return path


def photo(path, size):
    pixels = np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - MEAN) / STD


def test_real_mobilenet_loads_completely_and_is_torchvisions_network(real):
    backbone = backbones.build("mobilenet_v2", str(real), stride=32)
    report = backbone.report
    assert (report.missing, report.unexpected) == ((), ())
    assert set(report.ignored) == {
        "features.18.0.weight", "features.18.1.weight", "features.18.1.bias", "features.18.1.running_mean",
        "features.18.1.running_var", "features.18.1.num_batches_tracked", "classifier.1.weight", "classifier.1.bias",
    }  # fmt: skip
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict({k: t.float() for k, t in torch.load(real, weights_only=True).items()})
    images = noise(1, 3, 97, 97)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)["high"], reference.features[:18](images))


def test_real_mobilenet_classifies_photos(real):
    classes = SHARED / "data/word_vectors/imagenet_classes.txt"
    photos = {"2007_000033": ("airliner", "warplane", "wing"), "2007_000129": ("mountain_bike", "bicycle")}
    if not classes.exists():
        pytest.skip(f"the list of classes is not there: {classes}")
    labels = [line.split("_", 1)[1] for line in classes.read_text().split()]
    backbone = backbones.build("mobilenet_v2", str(real), stride=32)
    head = torchvision.models.mobilenet_v2(weights=None).eval()
    head.load_state_dict({k: t.float() for k, t in torch.load(real, weights_only=True).items()})
    for name, names in photos.items():
        image = photo(SHARED / "data/voc2012/JPEGImages" / f"{name}.jpg", 257)[None]
        with torch.no_grad():
            logits = head.classifier(head.features[18](backbone(image)["high"]).mean((2, 3)))
        top = [labels[i] for i in logits[0].topk(3).indices]
        assert any(word in label for label in top for word in names), (name, top)


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
