"""What several tests of the library share."""

import random
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fss import precision
from fss.backbones import Backbone, Features, LoadReport, Network
from fss.backbones.extractor import Extractor


@pytest.fixture(autouse=True)
def _global_randomness_stays_untouched() -> Iterator[None]:
    """Every test here also checks that `fss` neither draws from nor seeds the generators of the process."""
    draws: tuple[Callable[[], object], ...] = (
        random.getstate,
        lambda: [np.asarray(part).tobytes() for part in np.random.get_state()],  # noqa: NPY002
        lambda: torch.get_rng_state().numpy().tobytes(),
    )
    before = [draw() for draw in draws]
    yield
    assert [draw() for draw in draws] == before, "the test moved a global generator"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors: threads cost more than they give, and results do not depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are those of float32 whatever the processor, see `fss.precision.coarse`."""
    monkeypatch.setattr(precision, "_MULTIPLIES", False)


class MeanColours(Network):
    """The mean of each patch of 8 pixels, mixed by fixed weights: features whose values can be told by hand.

    Patches are centred on the pixels 0, 8, 16, ...: the geometry `corners=True`, for sides of 8n + 1 pixels.
    """

    stride = 8
    corners = True
    channels: ClassVar[dict[str, int]] = {"low": 4, "mid": 5, "high": 6}

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for level, width in self.channels.items():
            self.register_parameter(level, nn.Parameter(torch.randn(width, 3, 1, 1, generator=generator)))

    def forward(self, images: torch.Tensor) -> Features:
        cells = F.avg_pool2d(images, 9, 8, 4, count_include_pad=False)
        return {level: F.conv2d(cells, self.get_parameter(level)) for level in self.channels}


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """A frozen backbone of mean colours on 65 x 65 pixels: 9 x 9 cells."""
    return Extractor(Backbone("mean_colours", MeanColours(), LoadReport(source="fixed")), size=65)


def noise_image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """An RGB image of coarse coloured noise, (width, height) pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
