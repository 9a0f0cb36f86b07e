"""Groups of images with things planted in them: embeddings of length 1 and where the things are."""

import numpy as np
import torch

SIDE, DIMS = 12, 16


def group(images: int = 8, kinds: int = 1, seed: int = 0) -> tuple[list[torch.Tensor], list[np.ndarray]]:
    """(SIDE, SIDE, DIMS) float32 embeddings of each image and the (SIDE, SIDE) bool place of its thing.

    Images take turns in the kind of their thing. Its two halves differ a little, and so do the grounds of two images.
    """
    generator = np.random.default_rng(seed)
    axes = np.eye(DIMS)
    fields, places = [], []
    for number in range(images):
        top, left = generator.integers(1, 5, size=2)
        place = np.zeros((SIDE, SIDE), bool)
        place[top : top + 6, left : left + 6] = True
        lower = place & (np.arange(SIDE)[:, None] >= top + 3)
        field = np.tile(axes[0] + 0.4 * axes[1 + number % 3], (SIDE, SIDE, 1))
        field[place] = axes[4 + 3 * (number % kinds)] + 0.4 * axes[5 + 3 * (number % kinds)]
        field[lower] -= 0.8 * axes[5 + 3 * (number % kinds)]
        field += 0.05 * generator.standard_normal(field.shape)
        fields.append(torch.from_numpy(field / np.linalg.norm(field, axis=2, keepdims=True)).float())
        places.append(place)
    return fields, places


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two bool masks."""
    return float((one & other).sum() / (one | other).sum())
