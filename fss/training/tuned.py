"""Training some parts of a backbone together with the head: pixels in, the same scalars out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from fss.backbones import Backbone, Features
from fss.heads.parts.head import Head
from fss.heads.parts.losses import Loss
from fss.training.step import MetaModule

#: Images whose activations are recomputed together by gradient checkpointing: the most that are in memory at once.
_CHUNK = 4


class Tuned(nn.Module):
    """A backbone of which the parameters that begin with one of `parts` are trained, and nothing else changes.

    Normalisation layers keep their statistics; those of a tuned part learn their scale and shift. With `recompute` no
    activations are kept for the backward pass. `precision` bf16 computes under autocast; features are float32.

    Raises:
        ValueError: if nothing begins with one of the parts.
    """

    def __init__(self, backbone: Backbone, parts: Sequence[str], recompute: bool = False, precision: str = "fp32"):
        super().__init__()
        self.net = backbone.net
        self.recompute = recompute
        self.precision = precision
        for module in self.net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = FixedNorm
        for parameter in self.net.parameters():  # whoever trains flattens and sends them
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        for part in parts:
            own = [p for name, p in self.net.named_parameters() if name.startswith(part)]
            if not own:
                tops = dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in self.net.named_parameters())
                raise ValueError(
                    f"train.tune: expected beginnings of names of {backbone.name}'s parameters, got {part!r}; they "
                    f"begin with {', '.join(tops)}"
                )
            for parameter in own:
                parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Tuned:
        """Change nothing: statistics stay as they are."""
        return self

    def forward(self, pixels: torch.Tensor) -> Features:
        """(N, 3, S, S) normalised images to levels (N, C, h, w) float32, with gradients to what is tuned."""
        pixels = pixels.to(next(self.net.parameters()).dtype)
        if not (self.recompute and torch.is_grad_enabled()):
            return self._compute(pixels)
        parts = [checkpoint(self._compute, part, use_reentrant=False) for part in pixels.split(_CHUNK)]
        return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}

    def _compute(self, pixels: torch.Tensor) -> Features:
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self.net(pixels.contiguous(memory_format=torch.channels_last))
        return {level: values.float() for level, values in features.items()}


class FixedNorm(nn.BatchNorm2d):
    """Batch normalisation by its running statistics, in float32: training in bf16 rounds its weights alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) in the type of `x`."""
        figures = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, variance, weight, bias = (None if each is None else each.float() for each in figures)
        return F.batch_norm(x.float(), mean, variance, weight, bias, False, 0.0, self.eps).to(x.dtype)


class TunedModule(MetaModule):
    """`MetaModule` of pixels: query (B, 3, S, S) and supports (B, K, 3, S, S), normalised float."""

    unchanging = ("backbone.",)

    def __init__(self, head: Head, loss: Loss, corners: bool, backbone: Tuned):
        super().__init__(head, loss, corners)
        self.backbone = backbone.eval()

    def features(self, query: torch.Tensor, support: torch.Tensor) -> tuple[Features, Features]:  # type: ignore[override]
        """Levels (B, C, h, w) and (B, K, C, h, w) of the backbone as it is by now, query and supports in one pass."""
        episodes, shots = support.shape[:2]
        levels = self.backbone(torch.cat([query, support.flatten(0, 1)]))
        first = {level: values[:episodes] for level, values in levels.items()}
        return first, {level: values[episodes:].unflatten(0, (episodes, shots)) for level, values in levels.items()}

    def tuned(self) -> dict[str, torch.Tensor]:
        """The tuned parameters, float32, by their names in a `Backbone`."""
        own = self.backbone.named_parameters()
        return {name: parameter.detach().float() for name, parameter in own if parameter.requires_grad}
