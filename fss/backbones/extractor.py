"""From RGB images to dense features of the frozen backbone, in calls of one size, on the device that is there.

Kernels, and with them the last bits, depend on the number of images of a call. So an image's features are the same
whatever is computed beside it: a CPU takes images one by one (large batches are slower there, for activations leave the
cache), a GPU takes `GPU_IMAGES`, and a call of fewer is filled up.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from fss.backbones import Backbone, Features
from fss.imaging import images

#: Images of every call on a GPU.
GPU_IMAGES = 16


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A backbone with the side of its square input in pixels.

    With `precision` bf16 the backbone computes under autocast; features are float32 all the same.
    """

    backbone: Backbone
    size: int
    precision: str = "fp32"

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    @property
    def call(self) -> int:
        """Images that the backbone takes at a time."""
        return GPU_IMAGES if self.device.type == "cuda" else 1

    @functools.cached_property
    def grid(self) -> int:
        """Cells a side of levels mid and high."""
        return int(self._folded(self._blank)["high"].shape[-1])

    @property
    def _blank(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.size, self.size, device=self.device)

    @functools.cached_property
    def _folded(self) -> Backbone:
        """What computes: a quarter less time of MobileNetV2, for the same features."""
        return self.backbone.folded(self._blank)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image], colour: bool = False) -> Features:
        """Features of a batch of RGB images of any sizes: each level (B, C, h, w) float32, on the device.

        With `colour` they bring `colours` as level `colour`, for heads that look at it (`Head.sees_colour`).
        """
        features = self.features(torch.stack([self.input(picture) for picture in pictures]))
        return features | {"colour": self.colours(pictures, features["high"].shape[-1])} if colour else features

    def input(self, picture: Image.Image) -> torch.Tensor:
        """(3, size, size) float32, normalised: an RGB image stretched as the backbone was trained."""
        return images.to_tensor(picture, self.size, self.backbone.interpolation)

    def blank(self) -> Features:
        """Features of one black image: what remains is where a cell lies."""
        return self.features(images.normalise(torch.zeros(1, 3, self.size, self.size)))

    def colours(self, pictures: Sequence[Image.Image], cells: int) -> torch.Tensor:
        """(B, 3, cells, cells) float32 in [0, 1], on the device: the colours of images at the centres of cells."""
        pixels = torch.stack([images.to_bytes(picture, self.size) for picture in pictures]).to(self.device).float()
        corners = self.backbone.corners
        return F.interpolate(pixels / 255, size=(cells, cells), mode="bilinear", align_corners=corners)

    @torch.inference_mode()
    def features(self, inputs: torch.Tensor) -> Features:
        """Features of (B, 3, size, size) normalised inputs on any device: each level (B, C, h, w) float32.

        Raises ValueError for features that are not finite: nothing that is made of them means anything.
        """
        parts = [self._called(part.to(self.device)) for part in inputs.split(self.call)]
        return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}

    def _called(self, inputs: torch.Tensor) -> Features:
        """Features of at most `call` inputs, of one call of that size."""
        missing = self.call - len(inputs)
        if missing:
            inputs = torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self._folded(inputs)
        features = {level: values[: self.call - missing] for level, values in features.items()}
        wild = [level for level, values in features.items() if not values.isfinite().all()]
        if wild:
            raise ValueError(
                f"backbone {self.backbone.name}: features of level {', '.join(wild)} are not finite; set"
                " backbone.precision=fp32, or backbone.weights to another checkpoint"
            )
        return {level: values.float() for level, values in features.items()}

    def stream(self, pictures: Sequence[Image.Image], colour: bool = False) -> Iterator[Features]:
        """Features of one image after the other, each level (C, h, w)."""
        for start in range(0, len(pictures), self.call):
            features = self(pictures[start : start + self.call], colour)
            for index in range(len(next(iter(features.values())))):
                yield {level: values[index] for level, values in features.items()}


def device_by_name(name: str = "auto") -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU; anything else as torch names it.

    Raises:
        ValueError: for a device that torch does not know or that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without GPUs
        why = str(error).partition("\n")[0]
        raise ValueError(f"device: expected auto, cpu or a GPU that is there, got {name!r} ({why}); set cpu") from error
