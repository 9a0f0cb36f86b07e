"""The server as users start it: on Ray Serve, with replicas, until a signal comes."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import requests

from cluster.config.serve import ServeConfig
from fss.segmenter import Segmenter
from tests import rays
from tests.cluster.web.pictures import DRAWN, IMAGE, MASK, query, several, unpacked
from tests.fss.segmenter.test_segmenter import write
from tests.places import ROOT

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
#: Seconds after which a server hangs, however busy the machine is.
LONG = 300


class Server:
    """A server that is a process of its own; `address` is where it says that it is."""

    def __init__(self, folder, *arguments, environment=os.environ):
        write(folder)
        self.segmenter = Segmenter.load(folder, "cpu")
        (self.port,) = rays.free_ports(1)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve", f"model={folder}", f"port={self.port}", *arguments],
            cwd=ROOT,
            env=environment | {"FSS_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout.readline() == f"starting Ray and {folder}, for some seconds\n"
        self.said = self.process.stdout.readline()
        self.address = self.said.rpartition(" ")[2].strip()

    def interrupt(self):
        """What it says at its end by Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 130
        return said

    def end(self):
        if self.process.poll() is None:
            rays.end(self.process)

    def post(self, path, **body):
        return requests.post(f"{self.address}{path}", headers=BEARER, timeout=LONG, **body)

    def replicas(self):
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in family if "".join(one.cmdline()).startswith("ray::ServeReplica")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("served"), "replicas=2")
    yield made
    made.end()


@pytest.fixture(scope="module")
def thing(server):
    assert server.said.startswith("serving "), server.process.stderr.read()
    answer = server.post("/supports", files={"image": IMAGE, "mask": DRAWN})
    assert answer.status_code == 200, answer.text
    return answer.json()["thing"]


def test_many_requests_beside_each_other_get_the_segmenters_masks(server, thing):
    expected = server.segmenter.prepare([IMAGE], [MASK])

    def ask(number):
        files = several(query(number), query(number + 1))
        return server.post("/segment", data={"thing": thing}, files=files).json()["answers"]

    with ThreadPoolExecutor(12) as threads:
        for number, answers in enumerate(threads.map(ask, range(24))):
            for place, told in enumerate(answers):
                np.testing.assert_array_equal(unpacked(told["mask"]), expected.segment(query(number + place)))


def test_refusals_come_through(server, thing):
    answer = server.post("/segment", data={"thing": thing}, files=several(IMAGE[:200]))
    assert (answer.status_code, answer.json()["detail"][:16]) == (400, "0.png: truncated")
    assert requests.get(f"{server.address}/models", timeout=LONG).status_code == 401
    assert requests.get(f"{server.address}/", timeout=LONG).status_code == 200
    answer = server.post("/supports", files={"image": b"0" * 2**27, "mask": DRAWN})
    assert (answer.status_code, "at most 64 MiB" in answer.text) == (413, True)


def test_it_listens_at_this_machine_alone(server, thing):
    listening = {
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == "LISTEN" and one.laddr.port == server.port
    }
    assert listening == {"127.0.0.1"}


def test_replicas_that_die_are_replaced_and_things_live_on(server, thing):
    dead = server.replicas()
    assert len(dead) == 2
    for one in dead:
        one.kill()
    for _ in range(LONG):
        answer = server.post("/segment", data={"thing": thing}, files=several(query(0)))
        if answer.status_code == 200:
            break
        time.sleep(1)
    mask = server.segmenter.segment(query(0), IMAGE, MASK)
    np.testing.assert_array_equal(unpacked(answer.json()["answers"][0]["mask"]), mask)
    assert {one.pid for one in dead}.isdisjoint(one.pid for one in server.replicas())


def test_what_does_not_fit_is_refused_before_anything_is_started(tmp_path):
    from cluster.web.deployment import running

    write(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port: expected a free port of 127\.0\.0\.1, got {port} .*; set port="):
            running(ServeConfig(model=str(tmp_path), port=port)).__enter__()
    with pytest.raises(ValueError, match="expected an exported model"):
        running(ServeConfig(model=str(tmp_path / "absent"))).__enter__()


def test_it_ends_by_a_signal_with_one_line_and_leaves_nothing(server, thing):
    family = psutil.Process(server.process.pid).children(recursive=True)
    said = server.interrupt()
    assert "stopped by Ctrl-C: the server has ended; what was shown to it is forgotten" in said.splitlines()[-1]
    _, alive = psutil.wait_procs(family, timeout=LONG)
    assert alive == []


def test_servers_of_one_cluster_end_with_their_commands_and_leave_it_as_it_was(head, tmp_path):
    made = [Server(tmp_path / name, f"address={head.address}", environment=head.environment) for name in ("a", "b")]
    try:
        first, second = (f"{one.address}/health" for one in made)
        for page in (first, second):
            assert requests.get(page, timeout=LONG).json() == {"status": "UP", "model_class": "correlation"}
        assert "ServeController" in living(head)
        made[0].interrupt()
        assert (rays.request(first), rays.request(second)) == (0, 200)
        made[1].interrupt()
    finally:
        for one in made:
            one.end()
    assert rays.request(second) == 0
    assert "Serve" not in living(head)


def living(head):
    """The actors that live on a cluster, as Ray lists them."""
    command = [rays.RAY, "list", "actors", "--filter=state=ALIVE", f"--address={head.dashboard}"]
    return subprocess.run(command, env=head.environment, capture_output=True, text=True, check=True).stdout
