"""Transformers under the names of timm, DeiT and Hugging Face: the same network, to the last bit of its weights."""

import pytest
import torch

from fss import backbones
from fss.backbones.vit import ViT
from tests.fss.backbones import checkpoints
from tests.fss.backbones.checkpoints import DIM, hugging_face
from tests.fss.backbones.noise import noise

GRID, PATCH = 3, 14


@pytest.fixture(scope="module")
def dino():
    """DINOv2's, with registers and LayerScale."""
    return checkpoints.dino(PATCH, GRID, registers=4, layer_scale=True)


def built(folder, content):
    torch.save(content, folder / "weights.pth")
    return backbones.build("vit_small", str(folder / "weights.pth"))


def assert_same(backbone, state):
    """Of a checkpoint in DINO's words: timm has the first row of the table within the class token."""
    own = backbone.net.loaded.state_dict()
    table, token = state["pos_embed"], state["cls_token"]
    expected = {key.replace("register_tokens", "reg_token"): tensor for key, tensor in state.items()}
    expected |= {"pos_embed": table[:, 1:], "cls_token": token + table[:, :1]}
    assert set(own) == set(expected)
    assert all(torch.equal(own[key], expected[key]) for key in own)


@pytest.mark.parametrize("prefix", ["", "dinov2.", "model.backbone."])
def test_hugging_faces_dinov2(tmp_path, dino, prefix):
    state = {prefix + key: tensor for key, tensor in hugging_face(dino, dinov2=True).items()}
    backbone = built(tmp_path, state | {f"{prefix}embeddings.mask_token": torch.zeros(1, DIM)})
    assert_same(backbone, dino)
    assert set(backbone.report.matched) == set(state)
    assert backbone.report.ignored == (f"{prefix}embeddings.mask_token",)


def test_hugging_faces_vit(tmp_path):
    state = checkpoints.dino(grid=GRID)
    backbone = built(tmp_path, {f"vit.{key}": tensor for key, tensor in hugging_face(state, dinov2=False).items()})
    assert_same(backbone, state)
    assert backbone.report.unexpected == ()


def test_scales_of_queries_keys_and_values_are_joined_like_them(tmp_path):
    state = checkpoints.dino(grid=GRID)
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
    without = torch.cat([torch.zeros(1, 1, DIM), dino["pos_embed"][:, 1:]], dim=1)
    assert_same(backbone, dino | {"pos_embed": without})
    assert len(backbone.report.matched) == len(dino)


@pytest.mark.parametrize("token", ["dist_token", "embeddings.distillation_token"])
def test_a_distilled_transformer_computes_what_deit_does(tmp_path, token):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = ViT("vit_small", native_grid=GRID).loaded.eval()
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
    state = hugging_face(checkpoints.dino(grid=GRID), dinov2=False)
    state["encoder.layer.0.attention.attention.key.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"parts of blocks\.0\.attn\.qkv\.weight that do not fit together"):
        built(tmp_path, state)


def test_two_tensors_of_one_name_are_refused(tmp_path, dino):
    with pytest.raises(ValueError, match="two tensors for reg_token: register_tokens and reg_token;"):
        built(tmp_path, dino | {"reg_token": dino["register_tokens"]})


@pytest.mark.parametrize(
    ("key", "shape"), [("patch_embed.proj.weight", (1, 1, 1, 99)), ("pos_embed", (1, 10, 1)), ("reg_token", (9,))]
)
def test_shapes_of_what_shapes_the_network_are_checked_before_it_is_built(key, shape):
    state = {"patch_embed.proj.weight": torch.zeros(DIM, 3, 8, 8), "pos_embed": torch.zeros(1, 10, DIM)}
    with pytest.raises(ValueError, match=rf"vit_small: expected {key} of shape .* got \({shape[0]},"):
        ViT.for_weights("vit_small", None, state | {key: torch.zeros(shape)})


def test_the_wider_transformer_is_named(tmp_path):
    torch.save(checkpoints.dino(grid=GRID), tmp_path / "small.pth")
    with pytest.raises(
        ValueError, match=r"vit_base: expected patch_embed\.proj\.weight of shape \(768, 3, any, any\), got"
    ):
        backbones.build("vit_base", str(tmp_path / "small.pth"))
