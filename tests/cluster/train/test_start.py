"""train.init_from: another model's head and nothing but it, known by its content."""

import shutil

import pytest
import torch

from cluster.engine import publish
from cluster.train import start
from fss import backbones, heads, segmenter
from fss.backbones.extractor import Extractor

MODEL = {"name": "umtfss", "options": {"dim": 8, "heads": 1, "foreground_prototypes": 2, "background_prototypes": 2}}


@pytest.fixture(scope="module")
def backbone():
    return backbones.build("small", "random", seed=1)


def head(backbone, seed, **options):
    return heads.build(MODEL["name"], MODEL["options"] | options, backbone.channels, corners=True, seed=seed)


@pytest.fixture
def exported(backbone, tmp_path):
    """A run's folder with an exported model of seed 3."""
    for name, data in segmenter.export(head(backbone, 3), Extractor(backbone, 96), MODEL, {}).items():
        publish.write_bytes(tmp_path / "run/train/abc/model" / name, data)
    return tmp_path / "run"


def test_the_head_gets_the_weights(backbone, exported):
    ours, theirs = head(backbone, 4), head(backbone, 3)
    assert not all(
        torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    start.fill(ours, str(exported), MODEL, backbones.fingerprint(backbone))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_the_settings_know_the_content_and_not_the_place(exported, tmp_path, backbone):
    found = start.content(str(exported))
    shutil.copytree(exported, tmp_path / "elsewhere")
    assert start.content(str(tmp_path / "elsewhere/train/abc/model")) == found
    other = segmenter.weights_bytes(head(backbone, 5))
    (exported / "train/abc/model/model.safetensors").write_bytes(other)
    assert start.content(str(exported)) != found
    assert start.content(None) is None
    assert start.located(str(exported)) == str(exported / "train/abc/model")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "correlation", "options": {}}, "expected a correlation model, got umtfss in .*; set model=umtfss"),
        (MODEL | {"options": MODEL["options"] | {"dim": 16}}, "do not fit this umtfss head; set model.options.dim=8 "),
    ],
)
def test_what_does_not_fit_is_an_error(backbone, exported, model, told):
    ours = heads.build(model["name"], model["options"], backbone.channels, corners=True)
    with pytest.raises(ValueError, match=f"train.init_from: .*{told}"):
        start.fill(ours, str(exported), model, backbones.fingerprint(backbone))


def test_another_backbone_is_an_error_that_names_the_right_one(backbone, exported):
    other = backbones.build("small", "random", seed=2)
    with pytest.raises(ValueError, match=r"backbone=small backbone.weights=.*model/backbone.safetensors"):
        start.fill(head(other, 0), str(exported), MODEL, backbones.fingerprint(other))


def test_other_options_that_fit_are_told(backbone, exported, caplog):
    model = MODEL | {"options": MODEL["options"] | {"foreground_prototypes": 3}}
    start.fill(head(backbone, 0, foreground_prototypes=3), str(exported), model, backbones.fingerprint(backbone))
    assert "trained with other options: model.options.foreground_prototypes=2" in caplog.text


def test_damage_and_absence_are_errors(backbone, exported, tmp_path):
    path = exported / "train/abc/model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged; export the model again"):
        start.fill(head(backbone, 0), str(exported), MODEL, backbones.fingerprint(backbone))
    with pytest.raises(ValueError, match=r"train.init_from: expected an exported model"):
        start.content(str(tmp_path / "nothing"))
