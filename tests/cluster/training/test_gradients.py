"""Gradients under every ZeRO stage: added up in float32, none where there is none, skipped steps counted."""

import json
import os
import subprocess
import sys

import pytest

from cluster.training.gradients import settings
from cluster.training.health import check_moving
from tests.places import ROOT

WAYS = [f"fp32 {stage}" for stage in range(4)] + [f"bf16 {stage}" for stage in (1, 2, 3)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What tests/cluster/training/steps.py found, by precision and stage, on a machine where no compiler is found."""
    folder = tmp_path_factory.mktemp("steps")
    command = [sys.executable, "-m", "tests.cluster.training.steps", str(folder / "store")]
    bare = os.environ | {"PATH": str(folder), "TORCH_EXTENSIONS_DIR": str(folder / "compiled"), "CC": "", "CXX": ""}
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(folder.glob("compiled/*/*")), "an operator of DeepSpeed was compiled"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", WAYS)
def test_parts_are_added_up_in_float32(found, way):
    """256 + 7 x 1: in bfloat16, of 8 bits, 256 + 1 is 256."""
    assert found[way]["summed"] == [-(256 + 7) / 8] * 4
    assert found[way]["norm"]["grad_norm"] == pytest.approx(2 * (256 + 7) / 8, rel=1e-3)
    assert found[way]["norm"]["skipped_steps"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_parameter_without_a_gradient_stays_as_under_torch(found, way):
    assert found[way]["never"] == [1.0] * 9
    first, second, third = found[way]["now and then"]
    assert first == [1.0] * 4
    assert second != first
    assert third == second


@pytest.mark.parametrize("way", WAYS)
def test_a_step_whose_gradients_are_not_finite_is_skipped_and_counted(found, way):
    assert found[way]["cliffs"] == [0.0, 0.0, -0.25, -0.25]
    assert [figures["skipped_steps"] for figures in found[way]["figures"]] == [1, 1, 0, 1]
    assert ["grad_norm" in figures for figures in found[way]["figures"]] == [False, False, True, False]
    assert found[way]["figures"][2]["grad_norm"] == pytest.approx(0.5)


def test_a_training_of_which_no_step_is_made_is_stopped():
    check_moving("train", 40, {"skipped_steps": 19.0, "grad_norm": 1.0})
    check_moving("train", 40, {"skipped_steps": 0.0})
    with pytest.raises(RuntimeError, match=r"train: all 20 steps up to step 40 were skipped, .* lower train\.lr"):
        check_moving("train", 40, {"skipped_steps": 20.0})


def test_bf16_never_takes_the_optimiser_whose_state_others_cannot_read():
    assert [settings("bf16", stage)["zero_optimization"]["stage"] for stage in (1, 2, 3)] == [2, 2, 3]
    assert [settings("fp32", stage)["zero_optimization"]["stage"] for stage in range(4)] == [0, 1, 2, 3]
