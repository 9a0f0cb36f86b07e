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

from fss import rng

#: Eigenvalues below this are rounding.
_NOISE = 1e-6
_NOISE_SINGLE = 1e-4
#: Vectors of a block and number of blocks of the Krylov space. On 50 photos of 729 tokens the worst vector was off by
#: 7e-4 at most (sine of the angle), with 20 blocks by 3e-2; a few times 1e-3 already moves Ward's tree.
_BLOCK, _BLOCKS = 4, 24


def ncut(fields: torch.Tensor, granularities: Sequence[int], dims: int = 6, power: float = 5.0) -> torch.Tensor:
    """Segments of (B, h, w, D) embeddings of length 1: (B, G, h, w) int64 on their device.

    Args:
        fields: the embeddings.
        granularities: segments of each map.
        dims: eigenvectors that are looked at.
        power: the affinity of two tokens is max(cosine, 0) ** power.
    """
    from scipy.cluster.hierarchy import linkage

    rows = fields.flatten(1, 2)
    if rows.shape[1] == 1:
        return torch.zeros(len(fields), len(granularities), 1, 1, dtype=torch.int64, device=fields.device)
    points = cut_embedding(rows, dims, power).cpu().numpy()
    segments = np.stack([_cut(linkage(image, "ward"), granularities) for image in points])
    return torch.from_numpy(segments).to(fields.device).unflatten(2, fields.shape[1:3])


def _cut(tree: np.ndarray, granularities: Sequence[int]) -> np.ndarray:
    from scipy.cluster.hierarchy import fcluster

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
    walk.baddbmm_(first[:, :, None], first[:, None], alpha=-1)  # the trivial cut, of eigenvalue 1
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


def second_vector(tokens: np.ndarray) -> np.ndarray:
    """The first column of `normalised_cut` at power 1, by Lanczos' method: (N, D) tokens to (N,) float64.

    A twentieth of the time at 2,500 tokens, and exact to 6 places also where affinities are of low rank, which a
    Krylov space of fixed size (`cut_embedding`) exhausts.
    """
    from scipy.sparse.linalg import eigsh

    walk, scale = _walk(torch.from_numpy(np.ascontiguousarray(tokens)), 1.0, torch.float64)
    first = scale.reciprocal() / scale.reciprocal().norm()
    rest = (walk - first[:, None] * first).numpy()
    if not np.abs(rest).max(initial=0) > _NOISE or len(rest) < 3:  # a plain image: nothing to iterate on
        return np.zeros(len(tokens))
    start = rng.numpy_rng(0, "ncut").standard_normal(len(rest))
    value, vector = (torch.from_numpy(each.copy()) for each in eigsh(rest, 1, which="LA", v0=start, tol=1e-10))
    return _scaled(value, vector * scale[:, None], _NOISE)[:, 0].numpy().round(6)


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
    """The `dims` largest eigenvalues of symmetric (B, N, N) matrices, falling, and their vectors (B, N, dims).

    Vectors are rows in here: a product of few rows with a matrix is several times as fast as one with few columns.
    """
    batch, number, _ = matrix.shape
    start = torch.from_numpy(rng.numpy_rng(0, "ncut").standard_normal((_BLOCK, number))).to(matrix)
    block = start.expand(batch, -1, -1)
    basis = matrix.new_empty(batch, _BLOCK * _BLOCKS, number)
    images = torch.empty_like(basis)
    for first in range(0, _BLOCK * _BLOCKS, _BLOCK):
        known = basis[:, :first]
        for _ in range(2):  # once leaves rounding behind, which moves segments; twice is enough
            block = block - (block @ known.transpose(1, 2)) @ known
        place = slice(first, first + _BLOCK)
        basis[:, place] = torch.linalg.qr(block.transpose(1, 2)).Q.transpose(1, 2)
        images[:, place] = block = basis[:, place] @ matrix
    small = basis @ images.transpose(1, 2)
    values, vectors = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    return values[:, -dims:].flip(1), basis.transpose(1, 2) @ vectors[:, :, -dims:].flip(2)


def _scaled(values: torch.Tensor, vectors: torch.Tensor, noise: float) -> torch.Tensor:
    """(..., dims) values and (..., N, dims) vectors as `normalised_cut` wants its columns, float64."""
    vectors = vectors.double()
    spread = vectors.std(dim=-2, correction=0, keepdim=True).clamp_min(1e-12)
    rank = torch.arange(1, values.shape[-1] + 1, dtype=vectors.dtype, device=vectors.device)
    return vectors / spread / rank.sqrt() * (values > noise)[..., None, :]
