"""The backbone of a run: its weights count by the content of all their files, and are looked at before any work."""

import hashlib
import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from cluster.features import backbone
from fss import backbones
from fss.imaging.images import normalise
from jobs._config import load

OVERRIDES = ("experiment=tiny", "backbone=small", "corpus=folder", "corpus.root=/nowhere")


def sharded(folder, state):
    """The path of an index of two shards of `state`."""
    folder.mkdir()
    places = {key: f"part-{number % 2}.safetensors" for number, key in enumerate(state)}
    for name in set(places.values()):
        part = {key: tensor.contiguous() for key, tensor in state.items() if places[key] == name}
        safetensors.torch.save_file(part, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return str(folder / "model.safetensors.index.json")


def problems(weights):
    return backbone.problems(load([*OVERRIDES, f"backbone.weights={weights}"]))


@pytest.fixture(scope="module")
def state():
    return backbones.build("small", seed=3).net.state_dict()


def test_weights_count_by_the_content_of_every_shard(tmp_path, state):
    first, same = sharded(tmp_path / "a", state), sharded(tmp_path / "b", state)
    key = list(state)[-1]
    other = sharded(tmp_path / "c", state | {key: state[key] + 1})
    assert backbone.weights_hash(first) == backbone.weights_hash(same) != backbone.weights_hash(other)
    plain = tmp_path / "a" / "part-0.safetensors"
    assert backbone.weights_hash(str(plain)) == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_fitting_weights_have_no_problems(tmp_path, state):
    assert problems(sharded(tmp_path / "a", state)) == []


def test_a_shard_that_is_not_there_is_a_problem_before_any_work(tmp_path, state):
    index = sharded(tmp_path / "a", state)
    (tmp_path / "a" / "part-1.safetensors").unlink()
    (said,) = problems(index)
    assert "cannot read weights" in said
    assert "part-1.safetensors" in said


def test_weights_that_are_not_finite_are_a_problem_before_any_work(tmp_path, state):
    key = next(iter(state))
    torch.save(state | {key: state[key] * float("nan")}, tmp_path / "weights.pth")
    (said,) = problems(tmp_path / "weights.pth")
    assert f"not finite as float32: {key}" in said


def test_a_size_that_the_network_refuses_is_a_problem_before_any_work():
    own = ("backbone=timm/resnet18", "backbone.weights=random", "backbone.size=448")
    (said,) = backbone.problems(load([*OVERRIDES, *own]))
    assert said.endswith("got 448 x 448: set the input size to 449")


def test_artefacts_of_a_network_that_has_none_are_a_problem_before_any_work():
    own = ("backbone=timm/resnet18", "backbone.weights=random", "backbone.size=65", "backbone.artefacts=3")
    (said,) = backbone.problems(load([*OVERRIDES, *own]))
    assert "backbone.artefacts: expected none, for only transformers of timm have such tokens, got 3.0" in said


def test_position_is_taken_out_of_what_a_worker_computes():
    spec = backbone.BackboneSpec("small", "random", None, 64, seed=1, debias=0.25)
    extractor = spec.load()
    assert extractor.backbone.debias.share == 0.25
    black = extractor.features(normalise(torch.zeros(1, 3, 64, 64)))["low"]
    plain = replace(spec, debias=0.0).load().features(normalise(torch.zeros(1, 3, 64, 64)))["low"]
    assert black.flatten(2).var(dim=2).sum() < 0.2 * plain.flatten(2).var(dim=2).sum()
