"""Object-like segments of an image from frozen features: a Ward tree in the embedding of the normalised cut.

The leading eigenvectors of the token graph (Shi and Malik 2000; TokenCut, Wang et al. 2022, cuts along the second)
place tokens of one thing close together; cutting a tree in that space at several numbers of segments gives wholes
and parts. Segments need not be connected: two birds make one segment, as in a class mask.

Letters: B images, N tokens, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from fss import rng

#: Eigenvalues below this are rounding.
_NOISE = 1e-6
_NOISE_SINGLE = 1e-4
#: Columns of a block and number of blocks of the Krylov space. On 20 photos of 729 tokens the worst column was off by
#: 9e-4 with 24 blocks and by 2e-5 with 30 (sine of the angle).
_BLOCK, _BLOCKS = 4, 28


def ncut(fields: torch.Tensor, granularities: Sequence[int], dims: int = 6, power: float = 5.0) -> torch.Tensor:
    """Segments of (B, h, w, D) embeddings of length 1: (B, G, h, w) int64 on their device, see `fss.segments.segment`.

    Args:
        fields: the embeddings.
        granularities: segments of each map.
        dims: eigenvectors that are looked at.
        power: the affinity of two tokens is max(cosine, 0) ** power.
    """
    rows = fields.flatten(1, 2)
    if rows.shape[1] == 1:
        return torch.zeros(len(fields), len(granularities), 1, 1, dtype=torch.int64, device=fields.device)
    points = cut_embedding(rows, dims, power).cpu().numpy()
    found = np.stack([_cut(linkage(image, "ward"), granularities) for image in points])
    return torch.from_numpy(found).to(fields.device).unflatten(2, fields.shape[1:3])


def _cut(tree: np.ndarray, granularities: Sequence[int]) -> np.ndarray:
    labels = [fcluster(tree, number, "maxclust") for number in granularities]
    return np.stack([np.unique(each, return_inverse=True)[1] for each in labels]).astype(np.int64)


def cut_embedding(tokens: torch.Tensor, dims: int, power: float) -> torch.Tensor:
    """`normalised_cut` of a batch of images: (B, N, D) float32 tokens to (B, N, dims) float64, on their device.

    A block Krylov space of fixed size from a fixed start (Musco and Musco 2015) stands in for the whole spectrum.
    Values are rounded to 4 places.
    """
    if tokens.shape[1] <= _BLOCK * _BLOCKS:
        return torch.stack([_scaled(*_exact(image, dims, power), _NOISE).round(decimals=8) for image in tokens])
    walk, scale = _walk(tokens.float(), power)
    first = scale.reciprocal() / scale.reciprocal().norm(dim=1, keepdim=True)
    walk -= first[:, :, None] * first[:, None]  # the trivial cut, of eigenvalue 1
    values, vectors = _leading(walk, dims)
    return _scaled(values, vectors * scale[:, :, None], _NOISE_SINGLE).round(decimals=4)


def normalised_cut(tokens: np.ndarray, dims: int, power: float) -> np.ndarray:
    """Leading non-trivial eigenvectors of the random walk on (N, D) tokens: (N, dims) float64.

    Column r is scaled to a standard deviation of 1 / sqrt(r), so that coarser cuts weigh more; signs are arbitrary.
    Columns without structure (eigenvalue 0, as in a plain image) are zero, and values are rounded, so that rounding
    noise makes no segments.
    """
    rows = torch.from_numpy(np.ascontiguousarray(tokens))
    return _scaled(*_exact(rows, dims, power), _NOISE).numpy().round(8)


def _exact(rows: torch.Tensor, dims: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    walk, scale = _walk(rows, power, torch.float64)
    values, vectors = torch.linalg.eigh(walk)
    dims = min(dims, len(rows) - 1)
    chosen = slice(len(rows) - 1 - dims, len(rows) - 1)
    return values[chosen].flip(0), vectors[:, chosen].flip(1) * scale[:, None]


def _walk(rows: torch.Tensor, power: float, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The symmetric form of the random walk on (..., N, D) tokens, (..., N, N), and D^(-1/2), (..., N)."""
    affinity = (rows @ rows.transpose(-1, -2)).clamp_(min=0).to(dtype)
    affinity = affinity.square().square_().mul_(affinity) if power == 5 else affinity**power
    affinity.diagonal(dim1=-2, dim2=-1).fill_(1)  # also for a token of zeros, which is like nothing but itself
    scale = affinity.sum(dim=-1).rsqrt()
    return affinity.mul_(scale[..., :, None]).mul_(scale[..., None, :]), scale


def _leading(matrix: torch.Tensor, dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `dims` largest eigenvalues of (B, N, N) matrices, falling, and their vectors (B, N, dims)."""
    batch, number, _ = matrix.shape
    start = torch.from_numpy(rng.numpy_rng(0, "ncut").standard_normal((number, _BLOCK))).to(matrix)
    block = torch.linalg.qr(start.expand(batch, -1, -1)).Q
    basis = matrix.new_empty(batch, number, _BLOCK * _BLOCKS)
    images = torch.empty_like(basis)
    for first in range(0, _BLOCK * _BLOCKS, _BLOCK):
        place = slice(first, first + _BLOCK)
        basis[:, :, place] = block
        images[:, :, place] = block = matrix @ block
        known = basis[:, :, : place.stop]
        for _ in range(2):  # once leaves rounding behind, twice is enough
            block = block - known @ (known.transpose(1, 2) @ block)
        block = torch.linalg.qr(block).Q
    small = basis.transpose(1, 2) @ images
    values, vectors = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    return values[:, -dims:].flip(1), basis @ vectors[:, :, -dims:].flip(2)


def _scaled(values: torch.Tensor, vectors: torch.Tensor, noise: float) -> torch.Tensor:
    """(..., dims) values and (..., N, dims) vectors as `normalised_cut` wants its columns, float64."""
    vectors = vectors.double()
    spread = vectors.std(dim=-2, correction=0, keepdim=True).clamp_min(1e-12)
    rank = torch.arange(1, values.shape[-1] + 1, dtype=vectors.dtype, device=vectors.device)
    return vectors / spread / rank.sqrt() * (values > noise)[..., None, :]
