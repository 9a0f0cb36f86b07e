"""Gradients of two workers: added up in float32 in bf16 too; a training of which no step is made is stopped."""

import json

import pytest

from cluster.config import ClusterConfig
from cluster.engine.stage import StageError
from cluster.training.job import Job
from tests.cluster import processes
from tests.cluster.training.plain import Plain

TWO = ClusterConfig(train_workers=2)
#: Their sum is 8. In bfloat16, of 8 bits, 256 + 1 is 256, and the first rank's 263 is 262 or 264.
ROWS = ((256.0, *[1.0] * 7), (-256.0, 1.0, *[0.0] * 6))


def job(folder, recipe, **how):
    return Job("train", recipe, folder, folder / "tracking", "test", "test", {}, batch=16, schedule="constant", **how)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_infinite_gradients_stop_two_workers(tmp_path, stage):
    made = job(tmp_path, Plain(ROWS, cliff=True), steps=9, log_every=3, zero_stage=stage)
    with pytest.raises(StageError, match=r"train: all 3 steps up to step 3 were skipped, because"):
        processes.train(made, TWO)
    assert not (tmp_path / "weights.json").exists()


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("fp32", 1), ("bf16", 1), ("bf16", 2)])
def test_two_workers_add_up_in_float32(tmp_path, precision, stage):
    """One step of rate 1 along the mean over all sixteen rows."""
    made = job(tmp_path, Plain(ROWS), steps=1, accumulate=8, precision=precision, zero_stage=stage)
    processes.train(made, TWO)
    assert json.loads((tmp_path / "weights.json").read_text()) == [-8 / 16] * 4
