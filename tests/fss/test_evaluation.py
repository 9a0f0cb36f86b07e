"""Running heads over episodes: the counts of doing it by hand, whatever the batch and the budget of the bank."""

import numpy as np
import pytest
import torch

from fss import episodes, evaluation, metrics
from fss.bank import FeatureBank
from fss.datasets import Dataset
from fss.grid import cells, enlarge
from fss.models.prototype import PrototypeReadout
from tests.fss.conftest import noise_image

SIZES = {f"n{i}": (40 + 3 * i, 60 - 2 * i) for i in range(6)}


def class_mask(name: str) -> np.ndarray:
    width, height = SIZES[name]
    mask = np.zeros((height, width), np.int32)
    mask[5:30, 3 : width // 2] = 1
    mask[20:40, width // 2 :] = 2
    mask[0] = 255
    return mask


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset(
        names=tuple(SIZES),
        class_names=("first", "second"),
        folds=((1,), (2,)),
        read_image=lambda name: noise_image(int(name[1:]), SIZES[name]),
        read_mask=class_mask,
    )


@pytest.fixture(scope="module")
def drawn() -> list[episodes.Episode]:
    return episodes.draw({1: list(SIZES), 2: list(SIZES)}, shots=2, count=7, seed=0)


@pytest.mark.parametrize(("batch", "capacity"), [(1, 0), (3, 10**6), (16, 5000)])
def test_results_equal_doing_it_by_hand(extractor, dataset, drawn, batch, capacity):
    head = PrototypeReadout(extractor.backbone.channels)
    found = list(evaluation.run(head, FeatureBank(extractor, capacity), dataset, drawn, batch))
    assert [result.episode for result in found] == drawn
    for result, episode in zip(found, drawn, strict=True):
        query = extractor([dataset.image(episode.query)])
        support = {k: v[None] for k, v in extractor([dataset.image(n) for n in episode.supports]).items()}
        masks = torch.stack([cells(dataset.binary_mask(n, episode.class_id), 9, True) for n in episode.supports])[None]
        truth = dataset.binary_mask(episode.query, episode.class_id)
        scores = enlarge(head(query, support, masks), truth.shape, corners=True)[0]
        expected = (scores[1] > scores[0]).numpy()
        assert result.prediction.shape == truth.shape
        assert result.prediction.dtype == np.uint8
        assert (result.prediction != expected).mean() < 0.01  # the bank rounds features to float16
        assert result.counts == metrics.count(result.prediction, truth)


def test_the_bank_sees_every_image_once(extractor, dataset, drawn):
    bank = FeatureBank(extractor, 10**6)
    list(evaluation.run(PrototypeReadout(extractor.backbone.channels), bank, dataset, drawn, batch=2))
    assert bank.misses == len({name for e in drawn for name in (e.query, *e.supports)})
    assert bank.hits > 0


def test_nothing_to_do(extractor, dataset):
    bank = FeatureBank(extractor, 0)
    assert list(evaluation.run(PrototypeReadout(extractor.backbone.channels), bank, dataset, [])) == []
