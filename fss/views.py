"""Fixed augmented views: pure functions of (seed, image, number), so that features of a view can be kept."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from fss import rng


@dataclasses.dataclass(frozen=True)
class View:
    """A crop, as shares (left, top, right, bottom) of the image, then mirrored or not."""

    flip: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def of_image(self, image: Image.Image) -> Image.Image:
        """The view of an RGB image."""
        if self.box != (0.0, 0.0, 1.0, 1.0):
            image = image.crop(_pixels(self.box, image.size))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image

    def of_mask(self, mask: np.ndarray) -> np.ndarray:
        """The view of an (H, W) mask."""
        left, top, right, bottom = _pixels(self.box, (mask.shape[1], mask.shape[0]))
        cut = mask[top:bottom, left:right]
        return np.ascontiguousarray(cut[:, ::-1]) if self.flip else cut


def draw(seed: int, key: str, number: int) -> View:
    """View `number` of image `key`: 0 the image itself, 1 mirrored, from 2 on random crops, half of them mirrored.

    Crops keep 50 to 100 % of the area at an aspect within 4:5 of the image's own.
    """
    if number < 2:
        return View(flip=number == 1)
    generator = rng.numpy_rng(seed, "view", key, number)
    area, aspect = generator.uniform(0.5, 1.0), np.exp(generator.uniform(-0.22, 0.22))
    width, height = min(1.0, float(np.sqrt(area * aspect))), min(1.0, float(np.sqrt(area / aspect)))
    left, top = float(generator.uniform(0, 1 - width)), float(generator.uniform(0, 1 - height))
    return View(bool(generator.integers(2)), (left, top, left + width, top + height))


def _pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    width, height = size
    x, y = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return x, y, max(round(right * width), x + 1), max(round(bottom * height), y + 1)
