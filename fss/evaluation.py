"""Running heads over episodes: features once an image, heads in batches, integer counts an episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from fss import metrics
from fss.bank import FeatureBank, stack, stack_shots
from fss.datasets import Dataset
from fss.episodes import Episode
from fss.grid import cells


@dataclasses.dataclass(frozen=True)
class Result:
    """One episode's counts and its (H, W) uint8 prediction in {0, 1}, at the query's own resolution."""

    episode: Episode
    counts: metrics.Counts
    prediction: np.ndarray


@torch.inference_mode()
def run(
    head: nn.Module, bank: FeatureBank, dataset: Dataset, episodes: Sequence[Episode], batch: int = 16
) -> Iterator[Result]:
    """Results of `episodes`, in order; all must have the same number of supports."""
    for start in range(0, len(episodes), batch):
        block = episodes[start : start + batch]
        logits = _logits(head, bank, dataset, block)
        for episode, scores in zip(block, logits, strict=True):
            truth = dataset.binary_mask(episode.query, episode.class_id)
            prediction = metrics.predict(scores[None], truth.shape, bank.extractor.backbone.corners)
            yield Result(episode, metrics.count(prediction, truth), prediction)


def _logits(head: nn.Module, bank: FeatureBank, dataset: Dataset, block: Sequence[Episode]) -> torch.Tensor:
    names = sorted({name for e in block for name in (e.query, *e.supports)})
    wanted: dict[Hashable, Image.Image | None] = {n: None if n in bank else dataset.image(n) for n in names}
    found = bank.get(wanted)
    device = bank.extractor.device
    query = stack([found[e.query] for e in block], device)
    support = stack_shots([[found[name] for name in e.supports] for e in block], device)
    side, corners = query["high"].shape[-1], bank.extractor.backbone.corners
    masks = [
        torch.stack([cells(dataset.binary_mask(name, e.class_id), side, corners) for name in e.supports]) for e in block
    ]
    return head(query, support, torch.stack(masks).to(device))
