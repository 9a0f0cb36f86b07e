"""A thing made ready once: no query computes its supports again, and its answers are those of the head alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.grid import cells, enlarge
from fss.heads.parts.support_prototypes import SupportPrototypes
from fss.segmenter import Segmenter
from fss.segmenter.edges import SIDE
from fss.segmenter.thing import Answer
from fss.training.bank import stack, stack_shots
from tests.fss.conftest import noise_image

SHOWN = [noise_image(place, (40 + place, 50)) for place in range(5)]
DRAWN = [np.pad(np.ones((20, 30 + place), np.uint8), ((10, 20), (4, 6))) for place in range(5)]
QUERIES = [noise_image(10 + place, (30 + 2 * place, 45)) for place in range(20)]


HEADS = {
    "smoothed": ("smoothed", {}),
    "umtfss": ("umtfss", {}),
    "umtfss of the paper": ("umtfss", {"variant": "paper", "dim": 16}),
    "umtfss, shot by shot": ("umtfss", {"shots": "average"}),
    "umtfss beside a read-out": ("umtfss", {"residual": "smoothed"}),
}


def built(name: str) -> Segmenter:
    """A head whose parameters all say something."""
    extractor = Extractor(backbones.build("small", seed=1), size=64)
    network = extractor.backbone
    head = heads.build(*HEADS[name], network.channels, corners=network.corners)
    with torch.no_grad():
        for place, parameter in enumerate(head.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place))
            parameter.add_(0.1 * noise)
    return Segmenter(head.eval(), extractor, {})


@pytest.fixture
def segmenter() -> Segmenter:
    return built("smoothed")


def test_twenty_queries_and_five_supports_are_25_images_for_the_backbone(segmenter):
    seen = []
    segmenter.extractor._folded.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    thing = segmenter.prepare(SHOWN, DRAWN)
    assert sum(seen) == 5
    assert len(list(thing.stream(QUERIES))) == 20
    assert sum(seen) == 25


@pytest.mark.parametrize("name", HEADS)
def test_the_answers_are_the_heads(name):
    """Of features of queries and supports together, as training sees them."""
    segmenter = built(name)
    features = list(segmenter.extractor.stream([QUERIES[3], *SHOWN]))
    device, corners = torch.device("cpu"), segmenter.extractor.backbone.corners
    masks = torch.stack([cells(mask, features[0]["high"].shape[-1], corners) for mask in DRAWN])[None]
    with torch.inference_mode():
        logits = segmenter.head(stack(features[:1], device), stack_shots([features[1:]], device), masks)
    expected = enlarge(logits, QUERIES[3].size[::-1], corners).softmax(dim=1)[0, 1].numpy()
    answers = list(segmenter.prepare(SHOWN, DRAWN).stream(QUERIES))
    np.testing.assert_array_equal(answers[3].probabilities, expected)
    assert [answer.probabilities.shape for answer in answers] == [query.size[::-1] for query in QUERIES]


@pytest.mark.parametrize("name", ["umtfss", "umtfss of the paper", "umtfss beside a read-out"])
def test_what_sums_up_supports_is_computed_once(name):
    segmenter, seen = built(name), []
    for module in segmenter.head.modules():
        if isinstance(module, SupportPrototypes):
            module.register_forward_hook(lambda *_: seen.append(1))
    thing = segmenter.prepare(SHOWN, DRAWN)
    once = len(seen)
    assert once > 0
    list(thing.stream(QUERIES))
    assert len(seen) == once


def test_one_after_the_other_is_the_same_as_one_alone(segmenter):
    thing = segmenter.prepare(SHOWN, DRAWN)
    for query, answer in zip(QUERIES, thing.stream(QUERIES), strict=True):
        np.testing.assert_array_equal(answer.probabilities, segmenter.probabilities(query, SHOWN, DRAWN))
        np.testing.assert_array_equal(answer.mask(0.4), thing.segment(query, 0.4))


def test_borders_of_masks_follow_the_photo_unless_they_are_not_to():
    photo, soft = Image.new("RGB", (160, 120), (20, 120, 40)), np.full((120, 160), 0.1, np.float32)
    photo.paste((200, 30, 30), (40, 30, 120, 90))
    soft[22:82, 50:130] = 0.9
    truth = np.asarray(photo)[..., 0] > 100
    own = Answer(soft, photo=photo).mask(edges=False)
    np.testing.assert_array_equal(own, soft > 0.5)
    np.testing.assert_array_equal(Answer(soft).mask(), own, err_msg="there is no photo to follow")
    assert (own != truth).sum() == 2320, "the answer is 10 pixels too far right and 8 too high"
    assert (Answer(soft, photo=photo).mask() != truth).sum() < 2320 / 2


def test_tiles_have_borders_as_fine_as_whole_images(segmenter):
    (whole,) = segmenter.prepare(SHOWN, DRAWN).stream([QUERIES[0]])
    large = QUERIES[0].resize((300, 150))
    (tiled,) = segmenter.prepare(SHOWN, DRAWN).stream([large], tile=100)
    assert (whole.side, tiled.side) == (SIDE, 3 * SIDE)
    assert (whole.photo.size, tiled.photo.size) == (QUERIES[0].size, (300, 150))


def test_images_are_read_when_they_are_asked_for(segmenter):
    answers = segmenter.prepare(SHOWN, DRAWN).stream([QUERIES[0], "absent.jpg"])
    next(answers)
    with pytest.raises(ValueError, match=r"expected an image at absent\.jpg, there is no such file"):
        next(answers)
