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
from tests.cluster.killed import check_ledger, losses, published, tiny

SHARDS, LABELS = "shard/*/.units/corpus-*.json", "label/*/.units/*.json"
CHECKPOINTS = "train/*/checkpoints/step-*/meta.json"
#: What a run has just written when it is ended, by which signal or by the loss of which daemon of its Ray; what was in
#: its environment.
ENDS = (
    (SHARDS, "gcs_server", {}),
    (LABELS, signal.SIGTERM, {}),
    (CHECKPOINTS, signal.SIGKILL, {"FSS_FAILPOINT": "before_rename tasks-*.tar"}),
    (CHECKPOINTS, signal.SIGINT, {}),
)
#: So many that some are left after each end, however late it comes: workers go on until Ray sees that nobody drives.
STEPS = 80
LONGER = ("corpus.shard_size=4", f"train.steps={STEPS}")
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
WHY = "mostly of too little memory: what is finished is kept; the same command goes on from there"
#: What nobody is to see: Ray's and torch's stacks, Python's, and what becomes of workers that are ended.
NOISE = ("received at time", "Traceback", "terminate called", "ray.kill")


pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def begin(photos, tmp_path):
    """A function (more settings, environment) -> a command in a session of its own; none is left behind."""
    jobs = []
    settings = (*tiny(photos), "cluster.workers=2", f"root={tmp_path}")

    def started(*more, **variables):
        with (tmp_path / "told").open("w") as told:
            command = [sys.executable, "-m", "jobs.train", *settings, *more]
            job = subprocess.Popen(
                command,
                cwd=CONF.parent,
                env=os.environ | variables,
                stdout=told,
                stderr=told,
                start_new_session=True,
            )
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
    assert told[-1] == line, "\n".join(told[-40:])
    # On a busy machine Ray's controller complains, with a stack, that it is slow: lines of its processes do not count.
    own = [each for each in told if not re.match(r"(\x1b\[\d+m)?\(\w+ pid=", each)]
    assert not [each for each in own if any(noise in each for noise in NOISE)]
    assert psutil.wait_procs(family, timeout=300)[1] == []


@pytest.fixture
def cluster():
    """One that a command can join."""
    from ray.cluster_utils import Cluster

    whole = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield whole
    whole.shutdown()


@pytest.mark.timeout(900)
def test_the_raylet_of_a_cluster_that_was_joined_dies(begin, cluster, tmp_path):
    job = begin(f"cluster.address={cluster.address}")
    new_file(job, tmp_path / "tiny", SHARDS)
    cluster.head_node.kill_raylet()
    assert job.wait() == 1
    check_end(tmp_path, [], f"error: Ray's raylet died, {WHY}")


def end(job, how, tmp_path):
    """End the job as a terminal does, a batch system or, by SIGKILL, the system; or its Ray's daemon, as that does when
    memory runs out."""
    family = psutil.Process(job.pid).children(recursive=True)
    if isinstance(how, str):
        next(process for process in family if process.name() == how).kill()
        assert job.wait() == 1
        check_end(tmp_path, family, f"error: Ray's {how} died, {WHY}")
        return
    workers = [one for one in family if "Agent" not in one.name()]  # those look after their Ray now and then
    os.killpg(job.pid, how)
    if how == signal.SIGKILL:
        assert job.wait() == -how
        assert psutil.wait_procs(workers, timeout=300)[1] == []
        return
    assert job.wait() == 128 + how
    kept = f"what is finished is kept in {tmp_path / 'tiny'}; the same command goes on from there"
    check_end(tmp_path, family, f"stopped by {NAMES[how]}: {kept}")


@pytest.mark.timeout(1800)
def test_a_command_that_is_ended_in_every_way_goes_on_to_the_same_bytes(begin, start, configure, tmp_path):
    """A worker dies besides, which the command must not notice. All of it is one run of the training in MLflow."""
    folder, marker = tmp_path / "tiny", tmp_path / "marker"
    for pattern, how, variables in ENDS:
        job = begin("tracking.enabled=true", *LONGER, **{key: f"{at} {marker}" for key, at in variables.items()})
        new_file(job, folder, pattern)
        end(job, how, tmp_path)
    assert marker.exists()
    assert not list(folder.glob("train/*/manifest.json"))
    assert begin("tracking.enabled=true", *LONGER).wait() == 0, (tmp_path / "told").read_text()[-3000:]
    whole = start(configure(tmp_path / "whole", *LONGER))
    whole.ensure("train")
    assert published(folder) == published(whole.folder) != {}
    for name in ("model/model.safetensors", "model/model.json"):
        (file,) = folder.glob(f"train/*/{name}")
        assert file.read_bytes() == (whole.manifest("train").folder / name).read_bytes(), name
    check_ledger(folder)
    assert losses(folder) == losses(whole.folder)
    check_mlflow(tmp_path, {*range(2, STEPS + 1, 2)})


def check_mlflow(root, steps):
    """One run of the training, finished, with all that was logged before and after each end."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = [one for one in client.search_runs(experiments) if one.info.run_name.startswith("train ")]
    assert [one.info.status for one in runs] == ["FINISHED"]
    history = client.get_metric_history(runs[0].info.run_id, "curves/loss")
    assert {point.step for point in history} == steps
