"""Whether a thing is there: told apart on tasks that show it, without a label, and kept with the model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fss import backbones, heads, segmenter
from fss.backbones.extractor import Extractor
from fss.grid import cells
from fss.segmenter import Segmenter, presence
from fss.segmenter.presence import Presence
from fss.training.bank import stack, stack_shots

COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 230), (230, 220, 40)]
NUMBER = 16


def scene(place: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A square of one of four colours somewhere on grey noise, and its mask."""
    generator = np.random.default_rng((place, seed))
    pixels, mask = generator.integers(90, 130, (64, 64, 3)), np.zeros((64, 64), np.uint8)
    top, left = generator.integers(0, 40, 2)
    mask[top : top + 24, left : left + 24] = 1
    pixels[mask == 1] = COLOURS[place % len(COLOURS)]
    return Image.fromarray(pixels.astype(np.uint8)), mask


@pytest.fixture(scope="module")
def model():
    """A read-out and its network."""
    extractor = Extractor(backbones.build("small", seed=1), size=64)
    network = extractor.backbone
    return heads.build("smoothed", {}, network.channels, corners=network.corners).eval(), extractor


@pytest.fixture(scope="module")
def calibration(model) -> Presence:
    head, extractor = model
    queries, supports = ([scene(place, seed) for place in range(NUMBER)] for seed in (0, 1))
    query = list(extractor.stream([image for image, _ in queries]))
    support = list(extractor.stream([image for image, _ in supports]))
    side = query[0]["high"].shape[-1]
    masks = torch.stack([cells(mask, side, head.corners) for _, mask in supports])[:, None]
    device = torch.device("cpu")
    shots = stack_shots([[one] for one in support], device)
    found = presence.calibrated(head, stack(query, device), shots, masks, [{str(place)} for place in range(NUMBER)])
    assert found is not None
    return found


def test_things_that_are_not_there_get_smaller_chances(model, calibration):
    """On images that calibration never saw, for every colour."""
    head, extractor = model
    one = Segmenter(head, extractor, {"presence": calibration.about})
    asked = [scene(place, 2)[0] for place in range(len(COLOURS))]
    for colour in range(len(COLOURS)):
        image, mask = scene(colour, 3)
        chances = [answer.presence for answer in one.prepare(image, mask).stream(asked)]
        assert int(np.argmax(chances)) == colour
        assert chances[colour] > 0.5 > np.mean([chance for place, chance in enumerate(chances) if place != colour])


def test_a_model_keeps_it_and_one_without_says_nothing(model, calibration, tmp_path):
    head, extractor = model
    (image, mask), (query, _) = scene(0, 0), scene(0, 1)
    chances = []
    for number, found in enumerate((calibration, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = segmenter.export(head, extractor, {"name": "smoothed", "options": {}}, {}, found)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        assert json.loads(files["model.json"])["presence"] == (
            None if found is None else json.loads(json.dumps(found.about))
        )
        chances.append(Segmenter.load(folder, "cpu").prepare(image, mask).answer(query).presence)
    direct = Segmenter(head, extractor, {"presence": calibration.about}).prepare(image, mask).answer(query).presence
    assert chances == [direct, None]


def test_a_chance_rises_with_likeness_and_is_a_half_between_both_kinds():
    generator = np.random.default_rng(0)
    there = np.arange(400) % 4 == 0
    likeness = generator.normal(0.2, 0.1, 400) + 0.3 * there
    found = Presence.fit(likeness, there)
    assert found.middle == pytest.approx(0.35, abs=0.02), "though the images without are thrice as many"
    chance = found.chance(likeness)
    assert chance[there].mean() > 0.85 > 0.15 > chance[~there].mean()
    assert Presence.fit(likeness, ~there) is None, "a larger likeness speaks against the thing"
    apart = Presence.fit(there * 1.0, there)
    assert np.isfinite([apart.middle, apart.slope]).all()


def test_too_few_tasks_and_tasks_of_the_same_images_calibrate_nothing(model):
    head, extractor = model
    images, masks = zip(*(scene(place, 0) for place in range(8)), strict=True)
    features = list(extractor.stream(images))
    shares = torch.stack([cells(mask, features[0]["high"].shape[-1], head.corners) for mask in masks])[:, None]
    device = torch.device("cpu")
    query, support = stack(features, device), stack_shots([[one] for one in features], device)
    few = ({name: values[:3] for name, values in levels.items()} for levels in (query, support))
    assert presence.calibrated(head, *few, shares[:3], [{str(place)} for place in range(3)]) is None
    assert presence.calibrated(head, query, support, shares, [{"one"}] * 8) is None
