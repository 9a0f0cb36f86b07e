"""Plain vision transformers (Dosovitskiy et al. 2021) with the state-dict keys of DINO and DINOv2.

Patch size, size of the position table, register tokens (Darcet et al. 2024) and LayerScale are read off the checkpoint.
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
        projection, table = _find(name, state, "patch_embed.proj.weight"), _find(name, state, "pos_embed")
        patch, positions = projection.shape[-1], table.shape[-2] - 1
        if math.isqrt(positions) ** 2 != positions:
            raise ValueError(
                f"{name}: expected a position table of 1 + n*n rows (class token, square grid), got {positions + 1}"
            )
        if stride not in (None, patch):
            raise ValueError(
                f"{name}: the checkpoint has patches of {patch} px, got stride {stride}: set stride to {patch}"
            )
        registers = [tensor.shape[-2] for key, tensor in state.items() if key.endswith("register_tokens")]
        return cls(
            name,
            patch=patch,
            native_grid=math.isqrt(positions),
            num_registers=registers[0] if registers else 0,
            layer_scale=any(key.endswith("ls1.gamma") for key in state),
        )

    @classmethod
    def own_key(cls, key: str) -> str:
        """DINOv2's training checkpoints number a block as blocks.<chunk>.<block>."""
        return re.sub(r"blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)

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
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position_table(h, w)
        if self.register_tokens is not None:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(images), -1, -1), x[:, 1:]], dim=1)
        levels = {DEPTH // 2: "low", 3 * DEPTH // 4: "mid", DEPTH: "high"}
        features = {}
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x)
            if depth in levels:
                tokens = self.norm(x)[:, -h * w :]  # behind the class and register tokens
                features[levels[depth]] = tokens.transpose(1, 2).unflatten(-1, (h, w)).contiguous()
        return features


def _find(name: str, state: State, suffix: str) -> torch.Tensor:
    for key, tensor in state.items():
        if key.endswith(suffix):
            return tensor
    raise ValueError(
        f"{name}: the weights have no {suffix!r}, so they are not of a DINO-like vision transformer"
        f" (first keys: {', '.join(list(state)[:3])})"
    )


NETWORK = ViT
