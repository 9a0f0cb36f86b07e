"""What official checkpoints of vision transformers hold: names and shapes as facts, numbers from a seed."""

import re

import torch

DIM = 384


def dino(patch=16, grid=14, registers=0, layer_scale=False, depth=12):
    """DINO's ViT-S backbone; DINOv2's with LayerScale and `registers`, and then its `mask_token` is `mask()`."""
    shapes = {"cls_token": (1, 1, DIM), "pos_embed": (1, 1 + grid**2, DIM), **_outer(patch)}
    if registers:
        shapes["register_tokens"] = (1, registers, DIM)
    for block in range(depth):
        shapes |= _block(block, layer_scale)
    return _drawn(shapes)


def mask():
    """The token that DINOv2 and DINOv3 put in the place of hidden patches."""
    return {"mask_token": torch.zeros(1, DIM)}


def dinov3(depth=12):
    """DINOv3's ViT-S/16: rotary positions, registers called storage tokens, keys without a bias."""
    shapes = {"cls_token": (1, 1, DIM), "storage_tokens": (1, 4, DIM), "rope_embed.periods": (16,), **_outer(16)}
    for block in range(depth):
        shapes |= _block(block, layer_scale=True) | {f"blocks.{block}.attn.qkv.bias_mask": (3 * DIM,)}
    return _drawn(shapes) | mask()


def _outer(patch):
    return {
        "patch_embed.proj.weight": (DIM, 3, patch, patch),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }


def _block(number, layer_scale):
    rows = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    shapes = {f"{name}.weight": shape for name, shape in rows.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in rows.items()}
    shapes |= {f"norm{one}.{part}": (DIM,) for one in (1, 2) for part in ("weight", "bias")}
    shapes |= {f"ls{one}.gamma": (DIM,) for one in (1, 2) if layer_scale}
    return {f"blocks.{number}.{name}": shape for name, shape in shapes.items()}


def _drawn(shapes):
    generator = torch.Generator().manual_seed(5)
    return {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hugging_face(state, dinov2):
    """The same under the names of Dinov2Model or ViTModel."""
    outer = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    plain = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense"}
    plain |= {"mlp.fc2": "output.dense"}
    renamed = {}
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


def hugging_face_dinov3(state):
    """The same under the names of DINOv3ViTModel."""
    outer = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "storage_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
    }
    inner = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}
    renamed = {}
    for key, tensor in state.items():
        if key in outer:
            renamed[outer[key]] = tensor
        elif "rope" not in key and "bias_mask" not in key:
            theirs = re.sub("|".join(inner), lambda found: inner[found[0]], key.replace("blocks.", "layer."))
            theirs = re.sub(r"ls(\d)\.gamma", r"layer_scale\1.lambda1", theirs)
            thirds = zip("qkv", tensor.chunk(3), strict=True) if "attn.qkv" in theirs else ()
            parts = {theirs.replace("attn.qkv", f"attention.{one}_proj"): third for one, third in thirds}
            renamed |= parts or {theirs: tensor}
    return {key: tensor for key, tensor in renamed.items() if not key.endswith("k_proj.bias")}
