"""Hugging Face's names for the tensors of vision transformers, in the words of DINO, DINOv2 and DINOv3."""

import re

#: Their names, in the order in which they are replaced, and DINO's.
_NAMES = tuple(
    (re.compile(rf"(^|\.){theirs}"), rf"\g<1>{ours}")
    for theirs, ours in (
        (r"embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
        (r"embeddings\.(cls_token|mask_token|register_tokens)$", r"\2"),
        (r"embeddings\.position_embeddings$", "pos_embed"),
        (r"embeddings\.distillation_token$", "dist_token"),
        (r"(?:encoder\.)?layer\.(\d+)\.", r"blocks.\2."),
        (r"attention\.attention\.(?:query|key|value)\.((?:weight|bias)\w*)$", r"attn.qkv.\2"),
        (r"attention\.[qkv]_proj\.(weight\w*)$", r"attn.qkv.\2"),
        (r"attention\.([qv])_proj\.bias$", r"attn.\2_bias"),  # DINOv3's keys have no bias
        (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
        (r"layernorm_before\.", "norm1."),
        (r"layernorm_after\.", "norm2."),
        (r"(?:intermediate\.dense|mlp\.up_proj)\.", "mlp.fc1."),
        (r"(blocks\.\d+)\.(?:output\.dense|mlp\.down_proj)\.", r"\2.mlp.fc2."),
        (r"layer_scale(\d)\.lambda1$", r"ls\2.gamma"),
        (r"layernorm\.(weight|bias)$", r"norm.\2"),
    )
)
_THIRD = re.compile(r"\.attention\.(?:attention\.(query|key|value)\.|([qkv])_proj\.weight)")


def own_part(key: str) -> tuple[str, int]:
    """DINO's name of a tensor, with what wraps it, and which part it is of one: queries, keys and values are three."""
    third = _THIRD.search(key)
    part = "qkv".index((third[1] or third[2])[0]) if third else 0
    for theirs, ours in _NAMES:
        key = theirs.sub(ours, key)
    return key, part
