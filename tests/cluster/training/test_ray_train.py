"""Ray Train starts the workers, and starts them again: the same bytes as by processes without Ray."""

import dataclasses

import pytest

from cluster.engine.files import damaged_in
from cluster.engine.stage import StageError
from cluster.training.loop import train  # what `start` puts in its place comes later
from tests.cluster import processes
from tests.cluster.train.troubled import kept, metrics, noted, troubled_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


def made(job):
    """What a training leaves, by name."""
    model = {path.name: path.read_bytes() for path in (job.folder / "model").iterdir()}
    return kept(job.folder) | model


def test_a_rank_killed_under_ray_train_changes_no_byte(tiny_run, tmp_path):
    """The last of two dies before batch 5, after the checkpoint of step 4; Ray Train starts both again."""
    cluster = dataclasses.replace(tiny_run.config.cluster, train_workers=2)
    jobs = {}
    for name, at in (("undisturbed", -1), ("killed", 5)):
        (tmp_path / name).mkdir()
        jobs[name] = troubled_job(tiny_run, tmp_path / name, at=at, how="killed")
    processes.train(jobs["undisturbed"], cluster)
    train(jobs["killed"], cluster, max_failures=1)
    assert (tmp_path / "killed" / "failed").exists()
    assert [number for number, _ in noted(tmp_path / "killed", 1)] == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert made(jobs["killed"]) == made(jobs["undisturbed"])
    losses = [metrics(job.tracking, job, "train/loss") for job in jobs.values()]
    assert losses[0] == losses[1] != {}
    assert not (jobs["killed"].folder / ".ray").exists()


def test_what_a_worker_raises_comes_through_ray_train(tiny_run, tmp_path):
    """Here a damaged file of tasks, which the run then has made again."""
    job = troubled_job(tiny_run, tmp_path, at=2, how="damaged")
    with pytest.raises(StageError, match=r"^train: .*is damaged.*; checkpoints are kept, run again to go on") as caught:
        train(job, tiny_run.config.cluster)
    assert [found.file.path for found in damaged_in(caught.value)] == ["tasks-000000.tar"]
    assert not (job.folder / ".ray").exists()
