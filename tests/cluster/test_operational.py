"""Keys that are said to be operational leave every byte as it is: a sample of them, see `config/test_sweep.py`."""

import shutil

from tests.cluster.config.test_sweep import operational

OTHERS = {
    "cluster.workers": 1,
    "cluster.memory_gib": 0,
    "cluster.cpus_per_worker": 3,
    "train.log_every": 3,
    "train.cache_gib": 0.0005,
    "train.checkpoint_every": 3,
    "train.keep_checkpoints": 1,
    "train.examples": 0,
    "train.max_failures": 0,
}
MADE_AGAIN = ("sample", "kmeans", "label", "pair", "train")


def test_other_machines_and_other_logs_make_the_same_bytes(tiny_run, configure, start, pools, tmp_path):
    """From samples to the exported model, candidates included."""
    assert all(map(operational, OTHERS))
    shutil.copytree(tiny_run.folder, tmp_path / tiny_run.config.name)
    for stage in MADE_AGAIN:
        shutil.rmtree(tmp_path / tiny_run.config.name / stage)
    run = start(configure(tmp_path, *(f"{key}={value}" for key, value in OTHERS.items())), pools[1])
    run.ensure("train")
    assert run.fresh == list(MADE_AGAIN)
    for stage in MADE_AGAIN:
        assert run.manifest(stage).files == tiny_run.manifest(stage).files, stage
