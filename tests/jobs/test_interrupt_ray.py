"""What stops a run under a Ray of its own: one line, no process left, and at last the bytes of an undisturbed run."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jobs._config import CONF

LABELS, STEPS = "label/*/.units/*.json", "train/*/checkpoints/step-*"
#: What a run has just written when it is stopped, and by which signal; training, which is short, is stopped once.
MOMENTS = (
    ((LABELS, signal.SIGTERM), (STEPS, signal.SIGINT)),
    ((LABELS, signal.SIGINT), (STEPS, signal.SIGTERM)),
)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
WHY = "mostly of too little memory: what is finished is kept; the same command goes on from there"
#: What nobody is to see: Ray's and torch's stacks, Python's, and what becomes of workers that are ended.
NOISE = ("received at time", "Traceback", "terminate called", "ray.kill")


pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def begin(photos, tmp_path):
    """A function (more settings) -> the run of `tiny_run` as a command in a session of its own; none is left behind."""
    jobs = []
    settings = [
        *("experiment=tiny", "backbone.weights=random", "corpus=folder", f"corpus.root={photos}/JPEGImages"),
        *("corpus.shard_size=12", "tracking.enabled=false", f"dataset.root={photos}", "fold=0"),
        *("cluster.workers=2", f"root={tmp_path}"),
    ]

    def started(*more):
        with (tmp_path / "told").open("w") as told:
            command = [sys.executable, "-m", "jobs.train", *settings, *more]
            job = subprocess.Popen(command, cwd=CONF.parent, stdout=told, stderr=told, start_new_session=True)
        jobs.append(job)
        return job

    yield started
    for job in jobs:
        job.kill()
        job.wait()


def new_file(job, folder, pattern):
    """Wait until the job has written a file that was not there before."""
    before = set(folder.glob(pattern))
    while not set(folder.glob(pattern)) - before:
        assert job.poll() is None, (folder.parent / "told").read_text()[-3000:]
        time.sleep(0.01)


def check_end(tmp_path, family, line):
    """The line is the last one, nobody's stack is before it, and no process is left."""
    told = (tmp_path / "told").read_text().splitlines()
    assert told[-1] == line
    # On a busy machine Ray's controller complains, with a stack, that it is slow: lines of its processes do not count.
    own = [each for each in told if not re.match(r"(\x1b\[\d+m)?\(\w+ pid=", each)]
    assert not [each for each in own if any(noise in each for noise in NOISE)]
    assert psutil.wait_procs(family, timeout=60)[1] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("daemon", ["raylet", "gcs_server"])
def test_a_daemon_of_ray_that_dies_ends_the_run_with_one_line(begin, tmp_path, daemon):
    """As the system's killer does when memory runs out."""
    job = begin()
    new_file(job, tmp_path / "tiny", "shard/*/.units/corpus-*.json")
    family = psutil.Process(job.pid).children(recursive=True)
    next(process for process in family if process.name() == daemon).kill()
    assert job.wait() == 1
    check_end(tmp_path, family, f"error: Ray's {daemon} died, {WHY}")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moments", MOMENTS)
def test_a_run_that_is_stopped_again_and_again_ends_at_the_same_bytes(begin, tiny_run, tmp_path, moments):
    folder = tmp_path / "tiny"
    for pattern, number in moments:
        job = begin()
        new_file(job, folder, pattern)
        family = psutil.Process(job.pid).children(recursive=True)
        os.killpg(job.pid, number)  # as a terminal does; of SIGTERM, as a batch system does
        assert job.wait() == 128 + number
        told = f"stopped by {NAMES[number]}: what is finished is kept in {folder}; the same command goes on from there"
        check_end(tmp_path, family, told)
    assert begin().wait() == 0, (tmp_path / "told").read_text()[-3000:]
    for stage in ("shard", "label", "pair"):
        ours, theirs = (run / stage / tiny_run.identity(stage)[2] for run in (folder, tiny_run.folder))
        assert (ours / "manifest.json").read_bytes() == (theirs / "manifest.json").read_bytes()
    models = [
        run / "train" / tiny_run.identity("train")[2] / "model/model.safetensors" for run in (folder, tiny_run.folder)
    ]
    assert models[0].read_bytes() == models[1].read_bytes()
