"""The Ray that a command starts for itself."""

import subprocess
import sys

import pytest

from cluster.engine.session import ROOT

ASK = """
import ray
from ray.util.state import list_actors
from cluster.config import ClusterConfig
from cluster.engine.session import session
with session(ClusterConfig()):
    print(ray.get(ray.remote(num_cpus=0)(lambda: len(list_actors(timeout=30))).remote()), "actors")
"""


@pytest.mark.slow
def test_a_worker_knows_its_ray_from_another_on_the_machine(ray_session):
    """Ray Train's helpers ask for the state of actors like this; `ray_session` is the other one."""
    command = [sys.executable, "-c", ASK]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "0 actors\n"
