"""Heads: what turns features of a query and of masked supports into a segmentation of the query.

A head (`fss.heads.parts.head.Head`) is a module `forward(query, support, masks) -> logits`, knows no loss, no device
and no backbone, and reads the number of shots from the shapes:

* query: `Features`, levels (B, C, h, w);  support: `Features`, levels (B, K, C, h, w);
* masks: (B, K, 2, h, w) float32, each cell's shares of background and of foreground in [0, 1], void in neither;
  a support may show no foreground (a distractor), then it says what is background and nothing of the foreground;
* logits: (B, 2, h, w), background first; a head that decodes may give a finer grid.

A new head is one file here, one line in `_HEADS` and one preset in `conf/model`; one that needs no training is named in
`TRAINING_FREE` as well.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from fss.heads.parts.head import Head

#: Heads that need no training, and what tables call them: the floors of a backbone.
TRAINING_FREE = {
    "prototype": "prototype read-out",
    "smoothed": "smoothed read-out",
    "nearest": "nearest support pixels",
    "segments": "segment selection",
    "saliency": "saliency mask",
    "cluster_match": "cluster match",
}
#: Module and class of each head; imported when one is built, for torch takes seconds.
_HEADS = {
    "prototype": "prototype.PrototypeReadout",
    "smoothed": "prototype.SmoothedReadout",
    "nearest": "nearest.NearestReadout",
    "segments": "segment_select.SegmentSelection",
    "saliency": "saliency.Saliency",
    "cluster_match": "cluster_match.ClusterMatch",
    "panet": "panet.PANet",
    "pfenet": "pfenet.PFENet",
    "cyctr": "cyctr.CyCTR",
    "masksplit": "masksplit.MaskSplit",
    "sst": "sst.SST",
    "pixel_meta": "pixel_meta.PixelMeta",
    "mining": "mining.MiningFSS",
    "correlation": "correlation.CorrelationHead",
    "umtfss": "umtfss.UMTFSS",
}
#: Heads that take a gradient inside of their forward pass, which torch.compile does not follow.
INNER_GRADIENT = ("sst",)


def names() -> tuple[str, ...]:
    """The heads there are."""
    return tuple(_HEADS)


def build(
    name: str,
    channels: Mapping[str, int],
    *,
    seed: int = 0,
    residual: str = "none",
    corners: bool = True,
    **options: Any,
) -> Head:
    """Head `name` for a backbone of `channels` (by level) and of geometry `corners`, its weights drawn from `seed`.

    `residual` adds a learned head to a read-out that needs no training: none, prototype or smoothed.

    Raises:
        ValueError: for an unknown name, option or residual, and for the residual of a head that learns nothing.
    """
    import torch

    from fss.heads.parts.residual import wrapped

    if name not in _HEADS:
        near = difflib.get_close_matches(name, _HEADS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a model of {', '.join(_HEADS)}, got {name!r}{hint}")
    module, _, kind = _HEADS[name].partition(".")
    head = getattr(importlib.import_module(f"fss.heads.{module}"), kind)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: fork_rng keeps no other
            found = head(dict(channels), **options)
            found.corners = corners
            return wrapped(found, residual, dict(channels))
    except TypeError as error:
        raise ValueError(f"model {name}: {error}") from error
