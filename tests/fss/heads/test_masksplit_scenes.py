"""MaskSplit learns from halves: trained on split masks of scenes, it finds objects of other scenes, by their classes.

The backbone is a small random one, so figures are low; to call everything the object is what they are compared with.
"""

import functools
import itertools

import numpy as np
import torch

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.heads.parts import losses
from fss.imaging import images
from fss.scenes import scene
from fss.tasks import views
from fss.tasks.pairing import mask_split
from fss.tasks.pairing.mask_split import Split
from fss.tasks.task import Batches, BatchLayout, Schedule, Task
from fss.training.bank import FeatureBank, batch_features
from fss.training.step import MetaModule

SIDE = 64
AUGMENT = views.Augment(crop=0.6, rotation=30, vertical_flip=0.5, gray=0.3, blur=0)


@functools.cache
def shown(index: int) -> tuple[bytes, np.ndarray]:
    picture, mask = scene.render(3, index, SIDE)
    return images.encode_jpeg(picture), mask


def half(number: int, seed: int) -> Task:
    """The two halves of all that a scene shows."""
    jpeg, mask = shown(number)
    found = mask_split.split((mask > 0) & (mask != 255), Split(min_area=0.0), seed)
    return Task((f"{number}",) * 2, (jpeg,) * 2, tuple(map(images.encode_png, (found.query, found.support))))


def whole(pair: tuple[int, int]) -> Task:
    """A class that two scenes share: what evaluation asks for."""
    (first, mine), (second, other) = map(shown, pair)
    label = min(set(np.unique(mine)) & set(np.unique(other)) - {0, 255})
    masks = [np.where(mask == 255, 255, mask == label).astype(np.uint8) for mask in (mine, other)]
    return Task(tuple(map(str, pair)), (first, second), tuple(map(images.encode_png, masks)))


def batches(tasks: list[Task], batch: int, fixed: int) -> Batches:
    layout = BatchLayout(loss=16, grid=extractor().grid, corners=False, size=SIDE, pixels=not fixed)
    return Batches(Schedule((len(tasks),), 0), lambda shard, epoch: tasks, batch, 0, fixed, layout, AUGMENT)


@functools.cache
def extractor() -> Extractor:
    return Extractor(backbones.build("small", seed=0), SIDE)


def test_halves_teach_to_find_objects():
    bank, backbone = FeatureBank(extractor(), 1 << 28), extractor().backbone
    pairs = [
        pair
        for pair in itertools.combinations(range(100, 124), 2)
        if set(np.unique(shown(pair[0])[1])) & set(np.unique(shown(pair[1])[1])) - {0, 255}
    ]
    exam = batches([whole(pair) for pair in pairs], len(pairs), 1)[0]
    head = heads.build("masksplit", {"dim": 32}, backbone.channels, corners=False, seed=0)
    module = MetaModule(head, losses.cross_entropy_dice, corners=False)

    def iou() -> float:
        module.eval()
        with torch.no_grad():
            found = module(*batch_features(bank, exam), exam.support, exam.truth)
        module.train()
        return float(found["iou"])

    before = iou()
    moments = [torch.zeros_like(parameter) for parameter in module.parameters()]
    for step in range(60):
        tasks = [half((8 * step + i) % 40, 8 * step + i) for i in range(8)]
        batch = batches(tasks, 8, 0)[0]
        module.zero_grad()
        module(*batch_features(bank, batch), batch.support, batch.truth)["loss"].backward()
        with torch.no_grad():
            for parameter, moment in zip(module.parameters(), moments, strict=True):
                moment.mul_(0.9).add_(parameter.grad)
                parameter.sub_(2e-3 * moment.sign())
    everything = float((exam.truth[:, 1].flatten(1).sum(1) / exam.truth.flatten(1).sum(1)).mean())
    assert before < everything + 0.02  # an untrained head knows nothing
    assert iou() > everything + 0.05
