"""Finer feature grids from pre-trained strided networks: trade a stage's stride for dilation ("à trous").

The convention is the one of torchvision's `replace_stride_with_dilation` and of CyCTR, UMTFSS and MiningFSS: the
convolution that loses its stride keeps the dilation in force before it, every later convolution takes the doubled one.
It is the only convention that keeps the network's values: on the positions of the coarse grid the dilated network
computes exactly what the strided one does. (PFENet, BAM, RePRI and MaskSplit dilate *all* convolutions of the stage,
also the one that lost its stride; with the same weights their features differ by up to a third, so their heads do not
transfer to these features.)
"""

from collections.abc import Sequence

import torch
from torch import nn


def check_stride(name: str, stride: int | None, allowed: Sequence[int], default: int) -> int:
    """Return `stride`, or `default` for None; raise ValueError naming the `allowed` strides of backbone `name`."""
    stride = default if stride is None else stride
    if stride not in allowed:
        raise ValueError(f"{name}: stride must be one of {', '.join(map(str, allowed))}, got {stride!r}")
    return stride


def dilate_to_stride(stages: Sequence[nn.Module], stride: int, native: int = 32) -> None:
    """Take the stride out of the last of `stages`, in place, until the output stride is `stride`.

    `stages` each halve the grid once, in order; the last one ends at stride `native`.
    """
    before, reached = 1, native >> len(stages)
    for stage in stages:
        if reached < stride:
            reached *= 2
        else:
            dilate_stage(stage, before, 2 * before)
            before *= 2


def dilate_stage(stage: nn.Module, before: int, after: int) -> None:
    """Remove the stride 2 of `stage`, in place: strided convolutions get dilation `before`, all the others `after`."""
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        dilation = before if module.stride[0] == 2 else after
        module.stride = (1, 1)
        if module.kernel_size[0] > 1:
            module.dilation = (dilation, dilation)
            module.padding = (dilation * (module.kernel_size[0] // 2),) * 2


def subsample(features: torch.Tensor, step: int) -> torch.Tensor:
    """Every `step`-th position of (B,C,h,w), from the first: (B,C,ceil(h/step),ceil(w/step)), same pixel centres."""
    return features[..., ::step, ::step]
