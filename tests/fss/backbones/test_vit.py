"""Transformers under the names of timm, DeiT and Hugging Face: the same network, to the last bit of its weights."""

import re

import pytest
import torch

from fss import backbones
from fss.backbones.vit import ViT
from tests.fss.backbones.noise import noise

GRID, PATCH, DIM = 3, 14, 384


@pytest.fixture(scope="module")
def dino():
    """DINOv2-like, with registers and LayerScale that are no constants."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = ViT("vit_small", patch=PATCH, native_grid=GRID, num_registers=4, layer_scale=True).state_dict()
        return {k: torch.randn_like(t) if k in ("register_tokens", "cls_token") else t for k, t in state.items()}


def hugging_face(state, dinov2):
    """The names of Dinov2Model or ViTModel."""
    renamed = {}
    outer = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    plain = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense"}
    plain |= {"mlp.fc2": "output.dense"}
    for key, tensor in state.items():
        if key in outer:
            renamed[outer[key]] = tensor
            continue
        theirs = re.sub(r"^blocks", "encoder.layer", key).replace("attn.proj", "attention.output.dense")
        theirs = re.sub(r"ls(\d)\.gamma", r"layer_scale\1.lambda1", theirs)
        if not dinov2:
            theirs = re.sub("|".join(plain), lambda found: plain[found[0]], theirs)
        if "attn.qkv" in theirs:
            for name, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[theirs.replace("attn.qkv", f"attention.attention.{name}")] = third
        else:
            renamed[theirs] = tensor
    return renamed


def built(folder, content):
    torch.save(content, folder / "weights.pth")
    return backbones.build("vit_small", str(folder / "weights.pth"))


def assert_same(backbone, state):
    own = backbone.net.state_dict()
    assert set(own) == set(state)
    assert all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize("prefix", ["", "dinov2.", "model.backbone."])
def test_hugging_faces_dinov2(tmp_path, dino, prefix):
    state = {prefix + key: tensor for key, tensor in hugging_face(dino, dinov2=True).items()}
    backbone = built(tmp_path, state | {f"{prefix}embeddings.mask_token": torch.zeros(1, DIM)})
    assert_same(backbone, dino)
    assert set(backbone.report.matched) == set(state)
    assert backbone.report.ignored == (f"{prefix}embeddings.mask_token",)


def test_hugging_faces_vit(tmp_path):
    state = ViT("vit_small", native_grid=GRID).state_dict()
    backbone = built(tmp_path, {f"vit.{key}": tensor for key, tensor in hugging_face(state, dinov2=False).items()})
    assert_same(backbone, state)
    assert backbone.report.unexpected == ()


def test_scales_of_queries_keys_and_values_are_joined_like_them(tmp_path):
    state = ViT("vit_small", native_grid=GRID).state_dict()
    theirs = hugging_face(state, dinov2=False)
    names = [f"encoder.layer.0.attention.attention.{part}.weight" for part in ("query", "key", "value")]
    scales = {f"{name}_scale": torch.full((DIM,), 2.0 + number) for number, name in enumerate(names)}
    factors = torch.cat(list(scales.values()))[:, None]
    key = "blocks.0.attn.qkv.weight"
    assert_same(built(tmp_path, theirs | scales), state | {key: state[key] * factors})
    with pytest.raises(ValueError, match="weight_scale that do not fit together"):
        built(tmp_path, theirs | {f"{name}_scale": torch.tensor(2.0) for name in names})


def test_timms_registers_and_a_position_table_without_the_class_token(tmp_path, dino):
    timm = {("reg_token" if key == "register_tokens" else key): tensor for key, tensor in dino.items()}
    backbone = built(tmp_path, timm | {"pos_embed": dino["pos_embed"][:, 1:]})
    table = dino["pos_embed"].clone()
    table[:, 0] = 0
    assert_same(backbone, dino | {"pos_embed": table})
    assert len(backbone.report.matched) == len(dino)


@pytest.mark.parametrize("token", ["dist_token", "embeddings.distillation_token"])
def test_a_distilled_transformer_computes_what_deit_does(tmp_path, token):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = ViT("vit_small", native_grid=GRID).eval()
        table, distilled = torch.randn(1, GRID**2 + 2, DIM), torch.randn(1, 1, DIM)
    state = net.state_dict() | {"pos_embed": table, token: distilled, "head_dist.weight": torch.zeros(2, 2)}
    backbone = built(tmp_path, state)
    assert (backbone.report.ignored, backbone.report.unexpected) == (("head_dist.weight",), ())
    images = noise(1, 3, 48, 48)
    with torch.no_grad():
        patches = net.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([net.cls_token, distilled, patches], dim=1) + table  # as DeiT's forward_features does
        for block in net.blocks:
            x = block(x)
        expected = net.norm(x)[:, 2:].transpose(1, 2).unflatten(-1, (GRID, GRID))
    torch.testing.assert_close(backbone(images)["high"], expected, rtol=1e-4, atol=1e-5)


def test_queries_keys_and_values_that_do_not_fit_together_are_refused(tmp_path):
    state = hugging_face(ViT("vit_small", native_grid=GRID).state_dict(), dinov2=False)
    state["encoder.layer.0.attention.attention.key.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"parts of blocks\.0\.attn\.qkv\.weight that do not fit together"):
        built(tmp_path, state)


def test_two_tensors_of_one_name_are_refused(tmp_path, dino):
    with pytest.raises(ValueError, match="two tensors for register_tokens: register_tokens and reg_token;"):
        built(tmp_path, dino | {"reg_token": dino["register_tokens"]})


@pytest.mark.parametrize(
    ("key", "shape"), [("patch_embed.proj.weight", (1, 1, 1, 99)), ("pos_embed", (1, 10, 1)), ("register_tokens", (9,))]
)
def test_shapes_of_what_shapes_the_network_are_checked_before_it_is_built(key, shape):
    state = {"patch_embed.proj.weight": torch.zeros(DIM, 3, 8, 8), "pos_embed": torch.zeros(1, 10, DIM)}
    with pytest.raises(ValueError, match=rf"vit_small: expected {key} of shape .* got \({shape[0]},"):
        ViT.for_weights("vit_small", None, state | {key: torch.zeros(shape)})


def test_the_wider_transformer_is_named(tmp_path):
    torch.save(ViT("vit_small", native_grid=GRID).state_dict(), tmp_path / "small.pth")
    with pytest.raises(
        ValueError, match=r"vit_base: expected patch_embed\.proj\.weight of shape \(768, 3, any, any\), got"
    ):
        backbones.build("vit_base", str(tmp_path / "small.pth"))
