"""A model as one graph of tensor operations, that other runtimes can hold: images and masks in, probabilities out.

    program = portable.program(Segmenter.load(FOLDER, "cpu"))

Letters: Q queries, K supports, S the side of the model's input in pixels.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch
from torch import nn

from fss.backbones import Features
from fss.grid import cells_of, enlarge
from fss.imaging import images
from fss.segmenter import Segmenter


class Portable(nn.Module):
    """A segmenter as a function of tensors alone, the same for every number of queries and of supports."""

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.head, self.backbone = segmenter.head, segmenter.extractor.backbone
        self.size, self.grid = segmenter.extractor.size, segmenter.extractor.grid

    def forward(self, queries: torch.Tensor, supports: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """(Q, S, S) float32 probabilities of the foreground, in [0, 1].

        Args:
            queries: (Q, 3, S, S) uint8, RGB, upright, stretched to S.
            supports: (K, 3, S, S) uint8, likewise.
            masks: (K, S, S) uint8: 1 is the thing, 0 the rest, 255 void.
        """
        corners, number = self.backbone.corners, queries.shape[0]
        asked, shares = self.head.focus(self._embedded(queries)), cells_of(masks, self.grid, corners)[None]
        shown = self.head.show({name: values[None] for name, values in self._embedded(supports).items()}, shares)
        shots = {name: _repeated(values, number) for name, values in shown.items()}
        logits = self.head.match(asked, shots, _repeated(shares, number))
        return enlarge(logits, (self.size, self.size), corners).softmax(dim=1)[:, 1]

    def _embedded(self, pixels: torch.Tensor) -> Features:
        features = self.backbone(images.normalise(pixels.float() / 255))
        return self.head.embed({level: values.float() for level, values in features.items()})


def _repeated(values: torch.Tensor, number: int) -> torch.Tensor:
    """(Q, ...) of the (1, ...) values that all queries share."""
    return values.expand(number, *values.shape[1:])


def program(segmenter: Segmenter) -> torch.export.ExportedProgram:
    """Its graph, for any numbers of queries and supports from 1 on.

    Raises:
        ValueError: for a head whose forward pass is no graph of tensor operations; it says why.
    """
    if reason := segmenter.head.no_graph:
        raise ValueError(
            f"expected a head whose forward pass is a graph of tensor operations, {segmenter.about['model']['name']} "
            f"{reason}; it runs where Python does, see Segmenter.load"
        )
    side = segmenter.extractor.size
    queries, supports = (torch.zeros(number, 3, side, side, dtype=torch.uint8) for number in (3, 2))
    masks = torch.ones(2, side, side, dtype=torch.uint8)
    several, shots = torch.export.Dim("queries", min=1), torch.export.Dim("shots", min=1)
    shapes = {"queries": {0: several}, "supports": {0: shots}, "masks": {0: shots}}
    module = Portable(segmenter).eval().requires_grad_(False)  # what it answers can be read as it is
    with torch.no_grad():
        return torch.export.export(module, (queries, supports, masks), dynamic_shapes=shapes)


def to_onnx(exported: torch.export.ExportedProgram) -> torch.onnx.ONNXProgram:
    """The same graph in ONNX's words; its inputs are named as those of `Portable.forward`, its output `probabilities`.

    Raises:
        ValueError: if the packages that it takes are not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"expected the packages of the extra `export`, {missing[0]} is not installed; install them")
    axes = {"queries": {0: "queries"}, "supports": {0: "shots"}, "masks": {0: "shots"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that two inputs share the name of an axis, which is meant
        made = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            output_names=["probabilities"],
            dynamic_shapes=axes,
            custom_translation_table={torch.ops.aten.sort.stable: _sorted},
        )
    assert made is not None
    return made


def _sorted(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """ONNX has no stable sort, but of equal values its TopK takes first what comes first."""
    from onnxscript import opset18 as op

    return op.TopK(values, op.Shape(values, start=dim, end=dim + 1 or None), axis=dim, largest=descending)
