"""Plain vision transformers (Dosovitskiy et al. 2021) with the state-dict keys of DINO, DINOv2 and timm.

Patch size, size of the position table, register tokens (Darcet et al. 2024) and LayerScale are read off the checkpoint.
Hugging Face's names are translated. A distilled token (DeiT, Touvron et al. 2021) is a register that has a position.
"""

import math
import re
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F

from fss.backbones.dilation import check_stride
from fss.backbones.network import Network, State

NAMES = ("vit_small", "vit_base")

WIDTHS = {"vit_small": (384, 6), "vit_base": (768, 12)}  # embedding dimension D, attention heads
DEPTH = 12

#: timm's and Hugging Face's names, in the order in which they are replaced, and DINO's.
_NAMES = tuple(
    (re.compile(rf"(^|\.){theirs}"), rf"\g<1>{ours}")
    for theirs, ours in (
        (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"embeddings\.cls_token$", "cls_token"),
        (r"embeddings\.position_embeddings$", "pos_embed"),
        (r"(?:embeddings\.register_tokens|embeddings\.distillation_token|reg_token|dist_token)$", "register_tokens"),
        (r"encoder\.layer\.(\d+)\.", r"blocks.\2."),
        (r"attention\.attention\.(query|key|value)\.((?:weight|bias)\w*)$", r"attn.qkv.\3"),
        (r"attention\.output\.dense\.", "attn.proj."),
        (r"layernorm_before\.", "norm1."),
        (r"layernorm_after\.", "norm2."),
        (r"intermediate\.dense\.", "mlp.fc1."),
        (r"(blocks\.\d+)\.output\.dense\.", r"\2.mlp.fc2."),
        (r"layer_scale(\d)\.lambda1$", r"ls\2.gamma"),
        (r"layernorm\.(weight|bias)$", r"norm.\2"),
        (r"blocks\.\d+\.(\d+)\.", r"blocks.\2."),  # DINOv2's training: blocks.<chunk>.<block>
    )
)
_THIRD = re.compile(r"\.attention\.attention\.(query|key|value)\.")


class SelfAttention(nn.Module):
    """Multi-head self-attention on (B,N,D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,N,D) -> (B,N,D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B,heads,N,D/heads)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with GELU, four times as wide in between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,N,D) -> (B,N,D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, CaiT)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,N,D) -> (B,N,D)."""
        return x * self.gamma


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, layer_scale: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = SelfAttention(dim, num_heads), MLP(dim)
        self.ls1, self.ls2 = (LayerScale(dim) if layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,N,D) -> (B,N,D)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches to tokens: one convolution whose kernel and stride are the patch size."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)


class ViT(Network):
    """low, mid, high = patch tokens after blocks 6, 9 and 12 of 12, each through the final LayerNorm, as (B,D,h,w).

    All three are on the patch grid: `stride` is the patch size and S must be a multiple of it.
    """

    corners = False

    def __init__(
        self,
        name: str,
        stride: int | None = None,
        *,
        patch: int | None = None,
        native_grid: int = 14,
        num_registers: int = 0,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        dim, num_heads = WIDTHS[name]
        patch = check_stride(name, stride, (8, 14, 16), default=16) if patch is None else patch
        self.stride = patch
        self.channels = {"low": dim, "mid": dim, "high": dim}
        self.patch_embed = PatchEmbed(dim, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + native_grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, dim)) if num_registers else None
        self.blocks = nn.ModuleList(EncoderBlock(dim, num_heads, layer_scale) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @classmethod
    def for_weights(cls, name: str, stride: int | None, state: State) -> Self:
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
        if any(_is(key, "register_tokens") for key in state):
            registers = _found(name, state, "register_tokens", (1, None, dim)).shape[1]
        return cls(
            name,
            patch=patch,
            native_grid=_native(name, table.shape[1], registers),
            num_registers=registers,
            layer_scale=any(_is(key, "ls1.gamma") for key in state),
        )

    @classmethod
    def own_part(cls, key: str) -> tuple[str, int]:
        """The names of timm and of Hugging Face, where queries, keys and values are three tensors."""
        third = _THIRD.search(key)
        for theirs, ours in _NAMES:
            key = theirs.sub(ours, key)
        return key, ("query", "key", "value").index(third[1]) if third else 0

    def fitted(self, state: State) -> dict[str, torch.Tensor]:
        """With one row of the position table for the class token: timm may have none, distilled ones have two."""
        table, native = state["pos_embed"], self.pos_embed.shape[1] - 1
        heads = table.shape[1] - native if table.ndim == 3 else 1
        if heads == 0:
            return {**state, "pos_embed": F.pad(table, (0, 0, 1, 0))}
        if heads == 2:
            rest, distilled = torch.cat([table[:, :1], table[:, 2:]], dim=1), table[:, 1:2]
            return {**state, "pos_embed": rest, "register_tokens": state["register_tokens"] + distilled}
        return dict(state)

    def position_table(self, h: int, w: int) -> torch.Tensor:
        """Position embeddings of the class token and an h x w grid, (1,1+hw,D); bicubic between the learned ones.

        At the learned grid's own size the table is returned as it is.
        """
        native = math.isqrt(self.pos_embed.shape[1] - 1)
        if (h, w) == (native, native):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (native, native)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; ValueError unless S is a multiple of the patch size."""
        if images.shape[-2] % self.stride or images.shape[-1] % self.stride:
            raise ValueError(
                f"a transformer with patches of {self.stride} px needs image sides that are multiples of {self.stride},"
                f" got {images.shape[-2]} x {images.shape[-1]}: set the input size to"
                f" {max(1, round(images.shape[-1] / self.stride)) * self.stride}"
            )
        patches = self.patch_embed.proj(images)
        h, w = patches.shape[-2:]
        x = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position_table(h, w)
        if self.register_tokens is not None:
            x = torch.cat([x[:, :1], self.register_tokens.expand(images.shape[0], -1, -1), x[:, 1:]], dim=1)
        levels = {DEPTH // 2: "low", 3 * DEPTH // 4: "mid", DEPTH: "high"}
        features = {}
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x)
            if depth in levels:
                tokens = self.norm(x)[:, -h * w :]  # behind the class and register tokens
                features[levels[depth]] = tokens.transpose(1, 2).unflatten(-1, (h, w)).contiguous()
        return features


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
