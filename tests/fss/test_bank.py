"""The feature bank: the same features whether kept or computed, within its budget, and batches in their order."""

import pytest
import torch

from fss import bank as banks
from fss.bank import FeatureBank
from fss.imaging import images
from fss.tasks import Batch
from fss.views import View
from tests.fss.conftest import noise_image

ONE_IMAGE = (4 + 5 + 6) * 81 * 2  # channels x cells x bytes of float16


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[level], second[level]) for level in first)


def test_features_are_float16_copies_of_the_extractors(extractor):
    found = FeatureBank(extractor, 10**6).get({i: noise_image(i) for i in range(5)})
    for number, features in found.items():
        expected = extractor([noise_image(number)])
        for level, values in features.items():
            assert (values.dtype, values.device.type) == (torch.float16, "cpu")
            assert torch.allclose(values.float(), expected[level][0], atol=2e-3, rtol=2e-3)


def test_what_is_kept_is_not_computed_again(extractor):
    bank = FeatureBank(extractor, 10**6)
    first = bank.get({"a": noise_image(0), "b": noise_image(1)})
    second = bank.get({"b": None, "c": noise_image(2), "a": None})
    assert (bank.hits, bank.misses) == (2, 3)
    assert bank.bytes == 3 * ONE_IMAGE
    assert second.keys() == {"a", "b", "c"}
    assert equal(first["a"], second["a"])
    assert equal(first["b"], second["b"])
    assert "a" in bank
    assert "x" not in bank


def test_the_budget_holds_and_nothing_is_evicted(extractor):
    bank = FeatureBank(extractor, 2 * ONE_IMAGE + ONE_IMAGE // 2)
    found = bank.get({i: noise_image(i) for i in range(4)})
    assert bank.bytes == 2 * ONE_IMAGE <= bank.capacity
    assert [i in bank for i in range(4)] == [True, True, False, False]
    again = bank.get({i: noise_image(i) for i in range(4)})
    assert all(equal(found[i], again[i]) for i in range(4))
    assert (bank.hits, bank.misses) == (2, 6)
    none = FeatureBank(extractor, 0)
    assert equal(none.get({0: noise_image(0)})[0], FeatureBank(extractor, 10**6).get({0: noise_image(0)})[0])
    assert none.bytes == 0


def test_kept_features_can_be_trained_on(extractor):
    """Features come from inference mode; those of the bank must still be usable where gradients are taken."""
    features = FeatureBank(extractor, 10**6).get({0: noise_image(0)})[0]
    weight = torch.ones(6, 1, 1, requires_grad=True)
    (banks.stack([features], torch.device("cpu"))["high"] * weight).sum().backward()
    assert weight.grad is not None


def test_stacks_by_hand(extractor):
    rows = list(FeatureBank(extractor, 0).get({i: noise_image(i) for i in range(6)}).values())
    cpu = torch.device("cpu")
    one = banks.stack(rows, cpu)
    assert one["mid"].shape == (6, 5, 9, 9)
    assert one["mid"].dtype == torch.float32
    assert torch.equal(one["mid"][4], rows[4]["mid"].float())
    two = banks.stack_shots([rows[:3], rows[3:]], cpu)
    assert two["mid"].shape == (2, 3, 5, 9, 9)
    assert torch.equal(two["mid"][1, 2], rows[5]["mid"].float())


@pytest.mark.parametrize("capacity", [0, ONE_IMAGE, 10**6])
def test_a_batch_gets_the_features_of_its_views(extractor, capacity):
    mirror, crop = View(flip=True), View(box=(0.1, 0.2, 0.8, 0.9))
    jpegs = {key: images.encode_jpeg(noise_image(i)) for i, key in enumerate("abc")}
    rows = [[("a", View()), ("b", mirror), ("c", crop)], [("b", mirror), ("a", View()), ("a", mirror)]]
    batch = Batch(rows, jpegs, torch.zeros(2, 2, 9, 9), torch.zeros(2, 2, 2, 9, 9))
    bank = FeatureBank(extractor, capacity)
    for _ in range(2):
        query, support = banks.batch_features(bank, batch)
        assert query["high"].shape == (2, 6, 9, 9)
        assert support["high"].shape == (2, 2, 6, 9, 9)
        for place, (key, view) in enumerate(rows[0][1:]):
            expected = extractor([view.of_image(images.decode(jpegs[key]))])["high"][0]
            assert torch.allclose(support["high"][0, place], expected, atol=2e-3, rtol=2e-3)
        assert torch.equal(query["high"][1], support["high"][0, 0])
        assert torch.equal(query["high"][0], support["high"][1, 0])
    assert bank.misses == {0: 8, ONE_IMAGE: 7, 10**6: 4}[capacity]
