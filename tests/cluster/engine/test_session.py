"""The Ray that a command starts for itself, and what is said where there is none."""

import os
import subprocess
import sys

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.engine import session as sessions
from cluster.engine.session import ROOT, session

ASK = """
import ray
from ray.util.state import list_actors
from cluster.config import ClusterConfig
from cluster.engine.session import session
with session(ClusterConfig()):
    print(ray.get(ray.remote(num_cpus=0)(lambda: len(list_actors(timeout=300))).remote()), "actors")
"""


@pytest.mark.slow
def test_a_worker_knows_its_ray_from_another_on_the_machine(ray_session):
    """Ray Train's helpers ask for the state of actors like this; `ray_session` is the other one."""
    command = [sys.executable, "-c", ASK]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "0 actors\n"


def refuses(text, address=None):
    with pytest.raises(ValueError, match=text), session(ClusterConfig(address=address)):
        pytest.fail("there is a Ray")


@pytest.mark.parametrize(
    "error",
    [Exception("The current node timed out during startup. This could happen\nbecause"), ConnectionError("no GCS")],
)
def test_a_ray_that_does_not_start_is_one_line(monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refuses(r"^Ray did not start on this machine in time \((The current node timed out|no GCS).*: run the same")
    monkeypatch.setattr(ray, "init", lambda **_: os.mkdir("/dev/null/ray"))
    with pytest.raises(NotADirectoryError), session(ClusterConfig()):
        pytest.fail("there is a Ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nobody.invalid:6379"])
def test_nobody_at_an_address_is_said_at_once(monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would wait for minutes"))
    refuses(rf"^cluster\.address or .*: expected a Ray at {address}, got: .*(refused|[Nn]ame).*; correct it", address)


def test_children_have_a_session_of_their_own_only_while_ray_starts():
    def own_session():
        code = "import os; print(os.getsid(0) == os.getpid())"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, preexec_fn=lambda: None, capture_output=True, text=True, check=True).stdout

    before = own_session()
    with sessions._apart():
        inside = own_session()
    assert (before, inside, own_session()) == ("False\n", "True\n", "False\n")
