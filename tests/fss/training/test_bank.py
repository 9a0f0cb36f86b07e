"""The feature bank: the same features whether kept or computed, within its budget, and batches in their order."""

import pytest
import torch
from PIL import Image

from fss.imaging import images
from fss.tasks.task import Batch
from fss.tasks.views import View
from fss.training import bank as banks
from fss.training.bank import FeatureBank
from tests.fss.conftest import noise_image

ONE_IMAGE = (4 + 5 + 6) * 81 * 2  # channels x cells x bytes of float16


def given(seed: int) -> torch.Tensor:
    return images.to_tensor(noise_image(seed), 65)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[level], second[level]) for level in first)


def test_features_are_float16_copies_of_the_extractors(extractor):
    found = FeatureBank(extractor, 10**6).get({i: given(i) for i in range(5)})
    for number, features in found.items():
        expected = extractor([noise_image(number)])
        for level, values in features.items():
            assert (values.dtype, values.device.type) == (torch.float16, "cpu")
            assert torch.allclose(values.float(), expected[level][0], atol=2e-3, rtol=2e-3)


def test_what_is_kept_is_not_computed_again(extractor):
    bank = FeatureBank(extractor, 10**6)
    first = bank.get({"a": given(0), "b": given(1)})
    second = bank.get({"b": None, "c": given(2), "a": None})
    assert (bank.hits, bank.misses) == (2, 3)
    assert bank.bytes == 3 * ONE_IMAGE
    assert second.keys() == {"a", "b", "c"}
    assert equal(first["a"], second["a"])
    assert equal(first["b"], second["b"])
    assert "a" in bank
    assert "x" not in bank


def test_the_budget_holds_and_nothing_is_evicted(extractor):
    bank = FeatureBank(extractor, 2 * ONE_IMAGE + ONE_IMAGE // 2)
    found = bank.get({i: given(i) for i in range(4)})
    assert bank.bytes == 2 * ONE_IMAGE <= bank.capacity
    assert [i in bank for i in range(4)] == [True, True, False, False]
    again = bank.get({i: given(i) for i in range(4)})
    assert all(equal(found[i], again[i]) for i in range(4))
    assert (bank.hits, bank.misses) == (2, 6)
    none = FeatureBank(extractor, 0)
    assert equal(none.get({0: given(0)})[0], FeatureBank(extractor, 10**6).get({0: given(0)})[0])
    assert none.bytes == 0


def test_kept_features_can_be_trained_on(extractor):
    """Features come from inference mode; those of the bank must still be usable where gradients are taken."""
    features = FeatureBank(extractor, 10**6).get({0: given(0)})[0]
    weight = torch.ones(6, 1, 1, requires_grad=True)
    (banks.stack([features], torch.device("cpu"))["high"] * weight).sum().backward()
    assert weight.grad is not None


def test_stacks_by_hand(extractor):
    rows = list(FeatureBank(extractor, 0).get({i: given(i) for i in range(6)}).values())
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
    mirror, crop = View(flip=True), View(box=(0.1, 0.2, 0.8, 0.9), angle=5, aspect=4 / 3)
    jpegs = {key: images.encode_jpeg(noise_image(i)) for i, key in enumerate("abc")}
    rows = [[("a", View()), ("b", mirror), ("c", crop)], [("b", mirror), ("a", View()), ("a", mirror)]]
    batch = Batch(rows, jpegs, torch.zeros(2, 2, 9, 9), torch.zeros(2, 2, 2, 9, 9))
    bank = FeatureBank(extractor, capacity)
    for _ in range(2):
        query, support = banks.batch_features(bank, batch)
        assert query["high"].shape == (2, 6, 9, 9)
        assert support["high"].shape == (2, 2, 6, 9, 9)
        for place, (key, view) in enumerate(rows[0][1:]):
            expected = extractor.features(banks.inputs(jpegs[key], view, extractor)[None])["high"][0]
            assert torch.allclose(support["high"][0, place], expected, atol=2e-3, rtol=2e-3)
        assert torch.equal(query["high"][1], support["high"][0, 0])
        assert torch.equal(query["high"][0], support["high"][1, 0])
    assert bank.misses == {0: 8, ONE_IMAGE: 7, 10**6: 4}[capacity]


def test_inputs_of_the_image_and_its_mirror_image_are_those_of_pictures(extractor):
    """To the bit: measured results depend on them."""
    jpeg = images.encode_jpeg(noise_image(3))
    image = images.decode(jpeg)
    assert torch.equal(banks.inputs(jpeg, View(), extractor), images.to_tensor(image, 65))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert torch.equal(banks.inputs(jpeg, View(flip=True), extractor), images.to_tensor(mirrored, 65))


def test_features_of_pixels_are_computed_and_not_kept(extractor):
    bank = FeatureBank(extractor, 10**6)
    pixels = torch.stack([torch.stack([given(2 * row), given(2 * row + 1)]) for row in range(3)])
    batch = Batch([[("a", View())] * 2] * 3, {}, torch.zeros(3, 2, 9, 9), torch.zeros(3, 1, 2, 9, 9), pixels)
    for _ in range(2):
        query, support = banks.batch_features(bank, batch)
    assert (bank.hits, bank.misses, bank.bytes) == (0, 12, 0)
    assert support["high"].shape == (3, 1, 6, 9, 9)
    assert torch.equal(query["mid"][2], extractor.features(given(4)[None])["mid"][0])
    assert torch.equal(support["mid"][2, 0], extractor.features(given(5)[None])["mid"][0])
    weight = torch.ones(6, 1, 1, requires_grad=True)
    (query["high"] * weight).sum().backward()
    assert weight.grad is not None


def test_files_become_the_same_pixels(extractor):
    jpegs = {key: images.encode_jpeg(noise_image(i)) for i, key in enumerate("ab")}
    rows = [[("a", View()), ("b", View(flip=True))]]
    batch = Batch(rows, jpegs, torch.zeros(1, 2, 9, 9), torch.zeros(1, 1, 2, 9, 9))
    found = banks.batch_pixels(batch, extractor, torch.device("cpu"))
    assert torch.equal(found[0, 1], banks.inputs(jpegs["b"], View(flip=True), extractor))
    assert found.shape == (1, 2, 3, 65, 65)
