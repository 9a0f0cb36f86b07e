"""Example predictions as one picture: what a look at the curves does not show."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fss.drawing import pictures
from fss.grid import enlarge
from fss.imaging import images

_CELL = 200


def picture(
    pixels: torch.Tensor,
    support: torch.Tensor,
    truth: torch.Tensor,
    logits: torch.Tensor,
    corners: bool,
) -> bytes:
    """PNG with one episode a row: the query, its supports with their masks, the truth and the prediction.

    Args:
        pixels: (B, 1 + K, 3, S, S) ImageNet-normalised images on the CPU, the query's first.
        support: (B, K, 2, h, w) shares of background and foreground, see `fss.heads`.
        truth: (B, 2, M, M), the same of the query.
        logits: (B, 2, h, w) of the head.
        corners: which geometry of `fss.grid` the cells have.
    """
    drawn: list[list[pictures.Picture]] = []
    captions = []
    for row, masks, real, answer in zip(_visible(pixels), support, truth, logits, strict=True):
        query, *others = (Image.fromarray(pictures.fit(image, _CELL)) for image in row)
        shown = [_over(image, mask, corners, pictures.ORANGE) for image, mask in zip(others, masks, strict=True)]
        drawn.append(
            [query, *shown, _over(query, real, corners, pictures.YELLOW), _over(query, answer, corners, pictures.BLUE)]
        )
        captions.append(["query", *["support"] * len(shown), "mask", "prediction"])
    return images.encode_png(pictures.contact_sheet(drawn, captions, cell=_CELL))


def _visible(pixels: torch.Tensor) -> np.ndarray:
    """(..., 3, S, S) normalised to (..., S, S, 3) float in [0, 1]."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (images.MEAN, images.STD))
    return (pixels * std + mean).movedim(-3, -1).numpy()


def _over(image: Image.Image, sides: torch.Tensor, corners: bool, colour: pictures.Colour) -> np.ndarray:
    """The image with a tint where the second of `sides`, (2, h, w) shares or logits, is the larger one."""
    large = enlarge(sides[None].float().cpu(), (image.height, image.width), corners)[0]
    return pictures.overlay(image, (large[1] > large[0]).numpy(), colour)
