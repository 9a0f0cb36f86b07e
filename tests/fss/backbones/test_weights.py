"""Weights of backbones: accounted for key by key, from every usual kind of file, also real ones."""

import argparse
import logging
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

from fss import backbones
from fss.backbones.vit import ViT
from tests.fss.backbones import checkpoints
from tests.fss.backbones.noise import noise
from tests.places import SHARED

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


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
    with pytest.raises(ValueError, match="expected a state dict, got dict without tensors"):
        backbones.build("resnet18", saved(tmp_path, {"epoch": 3}))


# ------------------------------------------------------------------------------------------------ wrappers, copies


@pytest.fixture(scope="module")
def small_state():
    return backbones.build("small", seed=7).net.state_dict()


def under(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


def moved(state):
    return {key: tensor + 1 for key, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "model.", "model.backbone.", "encoder.", "visual.", "trunk.0.body."],
)
@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "net", None])
def test_whatever_wraps_a_network_is_taken_off(tmp_path, small_state, prefix, nest):
    state = under(prefix, small_state)
    content = {"epoch": 1, nest: state, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}]}
    backbone = backbones.build("small", saved(tmp_path, content if nest else state))
    assert_loaded(backbone, small_state)
    assert backbone.report.unexpected == ()
    assert backbone.report.ignored == (("optimizer_states.0.state.0.exp_avg",) if nest else ())


@pytest.mark.parametrize(
    ("meant", "other"),
    [
        ("teacher.backbone.", "student.module.backbone."),
        ("state_dict.teacher_backbone.", "state_dict.student_backbone."),
        ("model_ema.", "model."),
        ("state_dict.module.encoder_q.", "state_dict.module.encoder_k."),
        ("online.", "target_network."),
        ("model.", "optimizer.exp_avg."),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_copies_the_one_that_is_meant_loads_in_any_order(tmp_path, small_state, meant, other, turned):
    parts = [under(meant, small_state), under(other, moved(small_state))]
    state = {key: tensor for part in (reversed(parts) if turned else parts) for key, tensor in part.items()}
    backbone = backbones.build("small", saved(tmp_path, state))
    assert_loaded(backbone, small_state)
    report = backbone.report
    assert len(report.matched) + len(report.unexpected) + len(report.ignored) == len(state)
    assert set(report.matched) == set(under(meant, small_state))


def test_different_copies_of_which_none_is_meant_are_refused_and_equal_ones_are_not(tmp_path, small_state):
    equal = under("left.", small_state) | under("right.", small_state)
    assert_loaded(backbones.build("small", saved(tmp_path, equal)), small_state)
    unlike = under("left.", small_state) | under("right.", moved(small_state))
    with pytest.raises(ValueError, match=r"2 different networks fit: left\., right\.; save one"):
        backbones.build("small", saved(tmp_path, unlike))


# ------------------------------------------------------------------------------------------------ values


def first_weight(state):
    return next(key for key, tensor in state.items() if tensor.ndim == 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_as_float32_are_refused_by_name(tmp_path, small_state, value):
    key = first_weight(small_state)
    bad = small_state[key].double()
    bad[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=f"1 tensors hold values that are not finite as float32: {key};"):
        backbones.build("small", saved(tmp_path, small_state | {key: bad}))


def test_variances_below_zero_and_weights_without_content_are_refused(tmp_path, small_state):
    key = next(key for key in small_state if key.endswith("running_var"))
    with pytest.raises(ValueError, match=f"1 tensors hold variances below 0: {key}; the training that made them"):
        backbones.build("small", saved(tmp_path, small_state | {key: -small_state[key]}))
    empty = {key: torch.zeros_like(tensor) for key, tensor in small_state.items()}
    with pytest.raises(ValueError, match="each of its weights holds one number everywhere; the training"):
        backbones.build("small", saved(tmp_path, empty))


def test_what_is_not_used_may_be_anything(tmp_path, small_state):
    path = saved(tmp_path, small_state | {"fc.weight": torch.tensor([float("nan")])})
    assert_loaded(backbones.build("small", path), small_state)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
def test_quantised_weights_without_their_scale_are_refused(tmp_path, small_state, dtype):
    key = first_weight(small_state)
    coded = small_state | {key: (small_state[key] * 50).to(dtype)}
    with pytest.raises(ValueError, match=rf"1 tensors are quantised .* {key} \({dtype}\); save .* float32"):
        backbones.build("small", saved(tmp_path, coded))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.float16])
@pytest.mark.parametrize("by_row", [False, True])
def test_scaled_weights_are_multiplied_by_the_scale_they_carry(tmp_path, small_state, dtype, by_row):
    key = first_weight(small_state)
    coded = (small_state[key] * 50).to(dtype)
    scale = torch.linspace(0.5, 2, len(coded)) if by_row else torch.tensor(0.02)
    path = saved(tmp_path, under("model.", small_state | {key: coded, f"{key}_scale": scale}))
    backbone = backbones.build("small", path)
    expected = coded.float() * (scale.view(-1, 1, 1, 1) if by_row else scale)
    assert torch.equal(backbone.net.state_dict()[key], expected)
    assert len(backbone.report.matched) == len(small_state) + 1


@pytest.mark.parametrize(("suffix", "shape"), [("_scale_inv", ()), ("_scale", (3, 5)), ("_zero_point", ())])
def test_other_ways_to_scale_are_refused(tmp_path, small_state, suffix, shape):
    key = first_weight(small_state)
    with pytest.raises(ValueError, match=f"got {key}{suffix} .*float32"):
        backbones.build("small", saved(tmp_path, small_state | {key + suffix: torch.ones(shape)}))


# ------------------------------------------------------------------------------------------------ transformers


def test_dino_teacher_loads_without_its_head(tmp_path):
    state = checkpoints.dino(patch=8, grid=28)
    teacher = {f"backbone.{key}": tensor for key, tensor in state.items()} | {"head.mlp.0.weight": torch.zeros(2, 2)}
    path = saved(tmp_path, {"student": {"module.x": torch.zeros(1)}, "teacher": teacher, "epoch": 99})
    backbone = backbones.build("vit_small", path)
    assert torch.equal(backbone.net.loaded.blocks[11].mlp.fc2.weight, state["blocks.11.mlp.fc2.weight"])
    assert (backbone.stride, backbone.report.ignored) == (8, ("student.module.x", "teacher.head.mlp.0.weight"))
    assert not backbone.report.unexpected
    with pytest.raises(ValueError, match="checkpoint has patches of 8 px, got stride 16: set stride to 8"):
        backbones.build("vit_small", path, stride=16)


def test_dinov2_with_registers_layer_scale_and_chunked_blocks(tmp_path):
    state = checkpoints.dino(patch=14, grid=5, registers=4, layer_scale=True)
    chunked = {}
    for key, tensor in state.items():
        block = key.split(".")[1] if key.startswith("blocks.") else None
        chunked[key.replace(f"blocks.{block}.", f"blocks.{int(block) // 6}.{block}.") if block else key] = tensor
    backbone = backbones.build("vit_small", saved(tmp_path, chunked | checkpoints.mask()))
    assert len(backbone.report.matched) == len(state)
    assert (backbone.report.ignored, backbone.report.unexpected) == (("mask_token",), ())
    assert torch.equal(backbone.net.loaded.reg_token, state["register_tokens"])
    features = backbone(noise(1, 3, 42, 56))
    assert {tuple(f.shape) for f in features.values()} == {(1, 384, 3, 4)}


def test_other_transformers_are_refused(tmp_path):
    path = saved(tmp_path, checkpoints.dino(grid=2) | {"cls_token": torch.zeros(1, 1, 768)})
    with pytest.raises(ValueError, match=r"another shape than in vit_small: cls_token \(expected \(1, 1, 384\)"):
        backbones.build("vit_small", path)
    with pytest.raises(ValueError, match=r"no 'patch_embed\.proj\.weight', so they are not of a DINO-like"):
        ViT.for_weights("vit_small", None, {"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 \+ n\*n rows .* got 7"):
        ViT.for_weights(
            "vit_small",
            None,
            {"patch_embed.proj.weight": torch.zeros(384, 3, 8, 8), "pos_embed": torch.zeros(1, 7, 384)},
        )


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
