"""What a head is shown before training starts: distinct images of training tasks, with their masks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.tasks.task import Batch
from fss.tasks.views import View
from fss.training.bank import FeatureBank, inputs, stack

#: Images that are shown at a time.
_TOGETHER = 16


@dataclass(frozen=True)
class Looked:
    """An image as its task shows it: file, view, and (2, h, w) shares of background and foreground in its cells."""

    name: tuple[str, View]
    jpeg: bytes
    shares: torch.Tensor


class Album:
    """Features of images and their masks, a few at a time, as often as they are gone through (`Head.study`)."""

    def __init__(self, looked: list[Looked], bank: FeatureBank):
        self.looked, self.bank = looked, bank

    def __iter__(self) -> Iterator[tuple[Features, torch.Tensor]]:
        extractor = self.bank.extractor
        for start in range(0, len(self.looked), _TOGETHER):
            part = self.looked[start : start + _TOGETHER]
            names: dict[Hashable, torch.Tensor | None] = {
                one.name: None if one.name in self.bank else inputs(one.jpeg, one.name[1], extractor) for one in part
            }
            kept = self.bank.get(names)
            shares = torch.stack([one.shares for one in part]).to(extractor.device)
            yield stack([kept[one.name] for one in part], extractor.device), shares


def distinct(batches: Iterable[Batch], number: int) -> list[Looked]:
    """The first `number` different images among the supports of batches of files, each as it is shown first.

    Supports without foreground (distractors) are passed over.
    """
    first: dict[str, Looked] = {}
    for batch in batches:
        for row, masks in zip(batch.images, batch.support, strict=True):
            for name, shares in zip(row[1:], masks, strict=True):
                if name[0] not in first and bool((shares[1] > 0).any()):
                    first[name[0]] = Looked(name, batch.jpegs[name[0]], shares)
                if len(first) == number:
                    return list(first.values())
    return list(first.values())
