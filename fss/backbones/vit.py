"""Plain vision transformers (Dosovitskiy et al. 2021), shaped like the checkpoint: of DINO, DINOv2, DeiT and MAE.

Patch size, size of the position table, register tokens (Darcet et al. 2024) and LayerScale are read off the checkpoint.
A distilled token (DeiT, Touvron et al. 2021) is a register that has a position. The network itself is timm's.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Self

import torch

from fss.backbones.dilation import check_stride
from fss.backbones.network import Renamed, State
from fss.backbones.timm import TimmNetwork, installed

NAMES = ("vit_small", "vit_base")

WIDTHS = {"vit_small": (384, 6), "vit_base": (768, 12)}  # embedding dimension D, attention heads
DEPTH = 12

#: What others call register tokens, and the blocks of DINOv2's training: blocks.<chunk>.<block>.
_REGISTERS = re.compile(r"(^|\.)(register_tokens|dist_token)$")
_CHUNK = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.")


class ViT(TimmNetwork):
    """low, mid, high = patch tokens after blocks 6, 9 and 12 of 12, each through the final LayerNorm, as (B, D, h, w).

    All three are on the patch grid: `stride` is the patch size and S must be a multiple of it. Between the positions
    that it learned timm's table is bicubic.
    """

    def __init__(
        self,
        name: str,
        stride: int | None = None,
        *,
        levels: Sequence[int] | None = None,
        patch: int | None = None,
        native_grid: int = 14,
        num_registers: int = 0,
        layer_scale: bool = False,
    ) -> None:
        dim, num_heads = WIDTHS[name]
        patch = check_stride(name, stride, (8, 14, 16), default=16) if patch is None else patch
        model = installed(name).models.VisionTransformer(
            img_size=native_grid * patch,
            patch_size=patch,
            num_classes=0,
            embed_dim=dim,
            depth=DEPTH,
            num_heads=num_heads,
            init_values=1.0 if layer_scale else None,
            reg_tokens=num_registers,
            no_embed_class=True,  # its row is part of the class token, see `fitted`
            dynamic_img_size=True,
        )
        super().__init__(name, patch, levels=levels, model=model)

    @classmethod
    def geometry(cls, name: str) -> bool:
        """Patches tile the image."""
        return False

    @classmethod
    def for_weights(cls, name: str, stride: int | None, state: State, **levels: Any) -> Self:
        """Shaped like the checkpoint `state`.

        Raises ValueError if `state` is no ViT checkpoint or `stride` is given and is not its patch size.
        """
        dim = WIDTHS[name][0]
        patch = _found(name, state, "patch_embed.proj.weight", (dim, 3, None, None)).shape[-1]
        table = _found(name, state, "pos_embed", (1, None, dim))
        if stride not in (None, patch):
            raise ValueError(
                f"{name}: the checkpoint has patches of {patch} px, got stride {stride}: set stride to {patch}"
            )
        registers = 0
        if any(_is(key, "reg_token") for key in state):
            registers = _found(name, state, "reg_token", (1, None, dim)).shape[1]
        return cls(
            name,
            **levels,
            patch=patch,
            native_grid=_native(name, table.shape[1], registers),
            num_registers=registers,
            layer_scale=any(_is(key, "ls1.gamma") for key in state),
        )

    @classmethod
    def own_part(cls, key: str) -> tuple[str, int]:
        """timm's names for those of DINO and of Hugging Face."""
        key, part = super().own_part(key)
        return _CHUNK.sub(r"\g<1>blocks.\2.", _REGISTERS.sub(r"\g<1>reg_token", key)), part

    def converted(self, given: Renamed, prefix: str) -> Renamed:
        """As it is: `own_part` has said it all, and the network has the checkpoint's own shape."""
        return given

    def fitted(self, state: State) -> dict[str, torch.Tensor]:
        """With positions of patches alone: the rows for the class token and a distilled one are added to these."""
        table = state["pos_embed"]
        heads = table.shape[1] - self.model.get_parameter("pos_embed").shape[1]
        made = {**state, "pos_embed": table[:, heads:]}
        for token, row in zip(("cls_token", "reg_token"), table[:, :heads].split(1, dim=1), strict=False):
            if state[token].shape == row.shape:  # others are refused by name
                made[token] = state[token] + row
        return made


def _is(key: str, own: str) -> bool:
    """Whether a key is the network's `own`, whatever wraps it."""
    return key == own or key.endswith(f".{own}")


def _found(name: str, state: State, own: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    """The first tensor of a name; ValueError if there is none, or one whose shape is not this (None is any size)."""
    tensor = next((tensor for key, tensor in state.items() if _is(key, own)), None)
    if tensor is None:
        raise ValueError(
            f"{name}: the weights have no {own!r}, so they are not of a DINO-like vision transformer"
            f" (first keys: {', '.join(list(state)[:3])})"
        )
    if tensor.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, tensor.shape, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected {own} of shape ({expected}), got {tuple(tensor.shape)}: change the name")
    return tensor


def _native(name: str, rows: int, registers: int) -> int:
    """Cells a side of a position table's grid, behind one row for the class token, none, or a distilled one too."""
    for heads in (1, 2, 0) if registers == 1 else (1, 0):
        side = math.isqrt(max(rows - heads, 0))
        if side and side**2 == rows - heads:
            return side
    raise ValueError(f"{name}: expected a position table of 1 + n*n rows (class token, square grid), got {rows}")


NETWORK = ViT
