"""A new head and a new backbone are one module and one preset each: the page's own examples, trained and exported."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import fss.backbones
import fss.heads
from fss import backbones, heads, segmenter
from fss.backbones.extractor import Extractor
from fss.segmenter import Segmenter
from tests.fss.backbones import test_geometry as geometry
from tests.fss.conftest import noise_image
from tests.fss.heads import learning, test_heads, test_learned
from tests.fss.heads.parts import test_residual
from tests.fss.segmenter.test_segmenter import MASKS, SUPPORTS
from tests.pages import files_shown

SHOWN = files_shown("docs/extending.md")


@pytest.fixture(autouse=True, scope="module")
def _added(tmp_path_factory) -> Iterator[None]:
    """The modules of the page in folders of their own, on the paths of their packages."""
    rooms = {"fss/heads": fss.heads, "fss/backbones": fss.backbones}
    folder = tmp_path_factory.mktemp("added")
    before = set(sys.modules)
    for room, package in rooms.items():
        (folder / room).mkdir(parents=True)
        for name in (name for name in SHOWN if str(Path(name).parent) == room):
            (folder / name).write_text(SHOWN[name])
        package.__path__.append(str(folder / room))
    importlib.invalidate_caches()
    yield
    for room, package in rooms.items():
        package.__path__.remove(str(folder / room))
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


def preset(name: str) -> dict:
    return yaml.safe_load(SHOWN[f"conf/{name}.yaml"])


def test_each_is_two_files_at_most():
    rooms = [str(Path(name).parent) for name in SHOWN]
    wanted = ["fss/heads", "conf/model", "fss/backbones", "conf/backbone"]
    assert [rooms.count(room) for room in wanted] == [1, 1, 1, 1]


def test_they_are_listed_with_the_others():
    assert {"linear", "umtfss"} <= set(heads.names())
    assert {"patches", "patches_wide", "resnet50"} <= set(backbones.names())
    assert "linear" not in heads.training_free()


def test_their_keys_are_checked():
    with pytest.raises(ValueError, match=r"model\.options\.dim: expected at least 1, got 0"):
        heads.build("linear", {"dim": 0}, {"high": 3}, corners=True)
    with pytest.raises(ValueError, match="patches: stride must be one of 8, 16, got 4"):
        backbones.build("patches", stride=4)


@pytest.mark.parametrize(
    "promise",
    [
        test_heads.test_a_batch_equals_one_by_one,
        test_heads.test_the_same_support_twice_is_nearly_the_same_as_once,
        test_heads.test_the_order_of_supports_hardly_matters,
        test_heads.test_bfloat16_weights_give_nearly_the_same_float32_logits,
        test_heads.test_autocast_runs,
        test_heads.test_a_void_support_changes_nothing,
        test_heads.test_the_seed_draws_the_weights,
        test_heads.test_what_is_kept_of_images_leads_with_the_batch,
        test_learned.test_learning_scores_the_prediction_of_forward,
        test_learned.test_what_is_kept_of_images_makes_the_same_prediction,
        test_learned.test_auxiliary_losses_are_shown_and_finite,
        test_learned.test_training_in_bfloat16_is_nearly_that_in_float32,
        test_learned.test_transformers_are_submodules_and_not_the_whole_head,
        test_residual.test_a_residual_can_do_what_its_head_can,
    ],
    ids=lambda promise: promise.__name__,
)
def test_a_new_head_keeps_what_every_head_promises(promise):
    with torch.random.fork_rng(devices=[]):
        promise("linear")


@pytest.mark.parametrize(("residual", "more"), [("none", 0.1), ("prototype", 0.01)])
def test_a_new_head_learns_in_training(residual, more):
    before, after = learning.learns("linear", nuisance=2, **preset("model/linear")["options"] | {"residual": residual})
    assert after.loss < before.loss
    assert after.iou > before.iou + more


def test_a_new_network_is_where_it_says():
    geometry.test_cells_lie_where_the_network_says("patches")


@pytest.mark.parametrize("residual", ["none", "smoothed"])
def test_both_are_exported_and_read_again(tmp_path, residual):
    model, network = preset("model/linear"), preset("backbone/patches")
    model["options"]["residual"] = residual
    extractor = Extractor(backbones.build(network["name"], stride=network["stride"], seed=3), network["size"])
    backbone = extractor.backbone
    head = heads.build(model["name"], model["options"], backbone.channels, corners=backbone.corners).eval()
    for name, data in segmenter.export(head, extractor, model, {}).items():
        (tmp_path / name).write_bytes(data)
    query = noise_image(0, (70, 45))
    expected = Segmenter(head, extractor, {}).probabilities(query, SUPPORTS, MASKS)
    assert expected.shape == (45, 70)
    assert expected.std() > 0
    assert (Segmenter.load(tmp_path, "cpu").probabilities(query, SUPPORTS, MASKS) == expected).all()
