"""The picture of example predictions: every cell where the eye expects it, masks where they are."""

import io

import numpy as np
import torch
from PIL import Image

from cluster.train import examples
from fss.drawing import pictures
from fss.imaging.images import MEAN, STD


def test_query_support_truth_and_prediction_in_a_row():
    """A grey picture; the support shows the left half, the truth the top half, the prediction nothing."""
    grey = (0.5 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    pixels = grey.expand(2, 2, 3, 64, 64)
    support = torch.zeros(2, 1, 2, 8, 8)
    support[..., 1, :, :4] = support[..., 0, :, 4:] = 1
    truth = torch.zeros(2, 2, 16, 16)
    truth[:, 1, :8] = truth[:, 0, 8:] = 1
    logits = torch.stack([torch.ones(2, 8, 8), -torch.ones(2, 8, 8)], dim=1)
    found = np.asarray(Image.open(io.BytesIO(examples.picture(pixels, support, truth, logits, corners=False))))
    assert found.shape[1] == 4 * (200 + 6) + 6

    def at(column, x, y):
        return tuple(int(v) for v in found[6 + y, 6 + column * 206 + x])

    def tint(colour):
        return tuple(round(0.55 * 128 + 0.45 * channel) for channel in colour)

    plain = (128, 128, 128)
    assert at(0, 50, 50) == at(3, 50, 50) == plain
    assert (at(1, 50, 100), at(1, 150, 100)) == (tint(pictures.ORANGE), plain)
    assert (at(2, 100, 50), at(2, 100, 150)) == (tint(pictures.YELLOW), plain)
