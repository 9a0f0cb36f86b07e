"""What all tests share: a home of their own, and one local Ray for those that need workers."""

import copy
import functools
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests import rays
from tests.places import ROOT

REPOSITORY = ROOT

# Set before anybody imports ray, mlflow or torch: a local Ray writes an access token into HOME, and settings of the
# person who runs the tests must not reach them.
_HOME = Path(tempfile.mkdtemp(prefix="fss-home-"))
for _key in [key for key in os.environ if key.startswith(("MLFLOW_", "RAY_"))]:
    del os.environ[_key]
os.environ |= {
    "HOME": str(_HOME),
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",  # by itself 60, in which a busy machine has not imported it
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how late the end of a training is noticed
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own is 15: beside other work a worker would get a thirtieth of a core
}


# The same examples in every run, so that a change is judged by what it changes; nothing fails for being slow, neither a
# test nor the drawing of its examples, since the machine may be busy.
hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


def pytest_unconfigure():
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_make_parametrize_id(val):
    """Bytes are named by their number: a name that holds them (a gzip's time, say) differs between two processes."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@functools.cache
def _ray_of(path):
    """Which Ray a file of tests asks for: "shared" by all, a "head" of its own, that of a "command", or ""."""
    text = (ROOT / path).read_text()
    asked = {"shared": r"\b(ray_session|pools)\b", "head": r"\bimport rays\b", "command": r"\bmark\.ray\b"}
    return next((kind for kind, words in asked.items() if re.search(words, text)), "")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files that need Ray come first: they take longest, and what is short evens the processes out in the end."""
    items.sort(key=lambda item: ("shared", "command", "head", "").index(_ray_of(item.path)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process is given whole files, whose tests share what is dear to make. One has all that share a Ray, and one
    after the other start the heads, and the commands, that have their own."""
    from xdist.scheduler import LoadFileScheduling

    class RaysApart(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return _ray_of(file) or file

    return RaysApart(config, log)


@pytest.fixture(autouse=True)
def _what_is_the_processs_own_is_put_back():
    """Environment, working folder and level of logging: no test sees what another one did to them."""
    environment, folder, level = dict(os.environ), Path.cwd(), logging.root.level
    yield
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    logging.root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _presets_are_put_together_once():
    """Hydra takes a tenth of a second for them, and the same few choices are asked for thousands of times."""
    from cluster.config import compose

    @functools.cache
    def composed(folder, choices):
        return presets(dict(choices))

    presets = compose.presets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "presets", lambda choices: copy.deepcopy(composed(compose.CONF, tuple(choices.items()))))
        yield


@pytest.fixture(scope="session")
def ray_session():
    """One Ray on this machine; its CPUs are places for processes, more than there are cores."""
    import ray

    from cluster.engine.session import LOCAL, VARIABLES

    variables = VARIABLES | LOCAL | {"PYTHONPATH": str(REPOSITORY)}
    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def head(tmp_path_factory):
    """A Ray that was started as people start one, and asks for a token: see tests/rays.py."""
    with rays.head(tmp_path_factory.mktemp("home"), "--num-cpus", "2") as one:
        yield one


@pytest.fixture(scope="session")
def pools(ray_session):
    """Pools of 1 and of 2 workers, by their size; starting one takes seconds."""
    from cluster.config import ClusterConfig
    from cluster.engine.pool import Pool

    with Pool(ClusterConfig(workers=1)) as one, Pool(ClusterConfig(workers=2)) as two:
        yield {1: one, 2: two}


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """36 rendered scenes in VOC's layout, 24 of them for evaluation too: a user's folder."""
    from fss.scenes import scene as scenes

    folder = tmp_path_factory.mktemp("photos")
    scenes.write(folder, 36, seed=5, size=96, val=2 / 3)
    return folder


@pytest.fixture(scope="session")
def configure(photos):
    """A function (root, *overrides) -> Config: the tiny preset on `photos`, with random weights and without MLflow."""
    from jobs._config import load

    def make(root, *overrides):
        return load(
            [
                "experiment=tiny",
                "backbone.weights=random",
                "corpus=folder",
                f"corpus.root={photos}/JPEGImages",
                "corpus.shard_size=12",
                f"dataset.root={photos}",
                "tracking.enabled=false",
                "fold=0",
                "cluster.workers=2",
                f"root={root}",
                *overrides,
            ]
        )

    return make


@pytest.fixture(scope="session")
def start():
    """A function (config, pool) -> Run that works and trains without Ray, or whose units one of `pools` computes."""
    from cluster.training import loop
    from tests.cluster import processes
    from tests.cluster.here import here

    def make(config, pool=None):
        run = here(config)
        if pool:
            run.__dict__["pool"] = pool
        run.release_pool = lambda: None  # it is everybody's
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", processes.train)
        yield make


@pytest.fixture(scope="session")
def tiny_run(configure, start, tmp_path_factory):
    """The tiny preset's run, trained: every stage but render, pretrain and evaluate."""
    run = start(configure(tmp_path_factory.mktemp("runs")))
    run.ensure("train")
    return run


@pytest.fixture
def copied(tiny_run, configure, start, tmp_path):
    """A fresh run on a copy of the tiny run's folder."""
    shutil.copytree(tiny_run.folder, tmp_path / tiny_run.config.name)
    return start(configure(tmp_path))
