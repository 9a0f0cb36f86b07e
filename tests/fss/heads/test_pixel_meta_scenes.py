"""The pixel-level meta-learner on the embedded corpus: trained on some classes it is better on the others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.datasets import areas, scenes
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.episodes import Episode, EpisodeRules, draw, pool
from fss.evaluation.metrics import FIELDS, summarise
from fss.evaluation.running import Photos, run
from fss.heads.parts import losses
from fss.scenes import scene
from fss.training.step import MetaModule

SIDE = 96


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Photos:
    folder = tmp_path_factory.mktemp("scenes")
    scene.write(folder, 150, seed=1, size=SIDE, val=1.0)
    extractor = Extractor(backbones.build("small", "random"), SIDE)
    dataset = scenes.dataset(str(folder))
    return Photos(dataset, extractor, FeatureStore(None, 0), Memory(1 << 30))


def episodes(photos: Photos, classes: tuple[int, ...], count: int, ways: int = 1) -> list[Episode]:
    table = {name: areas(photos.dataset, name) for name in photos.dataset.names}
    return draw(pool(table, classes, EpisodeRules("classes", ways, 1, 60)), count=count, seed=0)


def batch(photos: Photos, chosen: list[Episode]) -> tuple:
    """What a step takes: features of queries and supports, masks, truth."""
    shown = [(e.query, e.ways[0].supports[0], e.ways[0].class_id) for e in chosen]
    query, support = ([photos.features(pair[i]) for pair in shown] for i in range(2))
    masks, truth = (torch.stack([photos.support(pair[i], pair[2]) for pair in shown]) for i in (1, 0))
    levels = {k: torch.stack([f[k] for f in query]).float() for k in query[0]}
    supports = {k: torch.stack([f[k] for f in support]).float()[:, None] for k in support[0]}
    return levels, supports, masks[:, None], truth


def miou(photos: Photos, head, ways: int = 1) -> float:
    measured = copy.deepcopy(head).eval()  # what is kept of images is kept by head
    found = list(run(measured, photos, episodes(photos, photos.dataset.folds[0], 60, ways), SIDE))
    rows = [
        (way.class_id, n, c) for r in found for n, (way, c) in enumerate(zip(r.episode.ways, r.counts, strict=True))
    ]
    columns = {name: np.array([getattr(c, name) for _, _, c in rows]) for name in FIELDS}
    columns |= {"class_id": np.array([c for c, _, _ in rows]), "way": np.array([n for _, n, _ in rows])}
    return 100 * summarise(columns)["miou"]


def test_training_on_some_classes_helps_on_others_with_one_way_and_with_two(photos):
    tested = set(photos.dataset.folds[0])
    classes = tuple(c for c in range(1, 21) if c not in tested)
    drawn = episodes(photos, classes, 8 * 60)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = heads.build("pixel_meta", {"hidden": 64, "dim": 32}, photos.extractor.backbone.channels, corners=True)
        before = miou(photos, head), miou(photos, head, 2)
        module = MetaModule(head, losses.cross_entropy, photos.corners).train()
        moments = [torch.zeros_like(p) for p in module.parameters()]
        for step in range(60):
            module.zero_grad()
            module(*batch(photos, drawn[8 * step : 8 * step + 8]))["loss"].backward()
            with torch.no_grad():
                for parameter, moment in zip(module.parameters(), moments, strict=True):
                    moment.mul_(0.9).add_(parameter.grad)
                    parameter.sub_(1e-3 * moment.sign())
        after = miou(photos, head), miou(photos, head, 2)
    assert after[0] > before[0] + 4
    assert after[1] > before[1] + 2  # two ways are harder
