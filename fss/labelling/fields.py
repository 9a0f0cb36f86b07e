"""Embeddings of whole images in few bytes, for what looks at them again: few dimensions, a byte each.

Only cosines have to survive. What keeps them best in k dimensions are the k leading eigenvectors of the embeddings'
second moments (Eckart and Young 1936). A unit vector's coordinates lie in [-1, 1], so 8 bits need no scale of their
own; they move a cosine by 0.003.

Against all 416 dimensions of MobileNetV2's `mid` and `high`, on 36 photos of VOC 2012 train that no direction was found
on:

| kept | cosines, r | same nearest photo | IoU of salient sides |
|---|---|---|---|
| 416 dimensions, 8 bits | 1.000 | 1.00 | 1.00 |
| 256 directions, 8 bits | .992 | .94 | .88 |
| 128 directions, 8 bits | .966 | .78 | .77 |
| 128 random directions | .795 | .64 | .67 |

Letters: h x w grid, D dimensions, k directions.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

#: The largest value of 8 bits with a sign.
_MOST = 127


def directions(rows: np.ndarray, number: int) -> np.ndarray:
    """The `number` directions that hold most of (n, D) embeddings: (D, k) float32, orthonormal columns.

    Where there are no more dimensions than that, all of them as they are.
    """
    from scipy.linalg import eigh

    dimensions = rows.shape[1]
    if dimensions <= number:
        return np.eye(dimensions, dtype=np.float32)
    wide = rows.astype(np.float64)
    vectors = eigh(wide.T @ wide, subset_by_index=(dimensions - number, dimensions - 1))[1]
    return np.ascontiguousarray(vectors[:, ::-1], np.float32)


def rounded(field: torch.Tensor, along: np.ndarray) -> np.ndarray:
    """(h, w, D) embeddings of length 1 along (D, k) orthonormal directions: (h, w, k) int8."""
    values = field.float().cpu() @ torch.from_numpy(along)
    return (values * _MOST).round().clamp(-_MOST, _MOST).to(torch.int8).numpy()


def unit(values: np.ndarray) -> torch.Tensor:
    """What `rounded` made as (h, w, k) float32 embeddings of length 1."""
    return F.normalize(torch.from_numpy(values).float(), dim=-1)
