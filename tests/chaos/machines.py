"""Three machines of one Ray, each a network namespace on one bridge; what dies there is started again, as clusters do.

Meant for a process in namespaces of its own, see `tests.chaos.__main__`: all that is made here ends with it.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from fss.meanwhile import meanwhile
from tests.places import ROOT
from tests.rays import RAY

#: Where servers answer, outside of the three machines, and where Ray's head does.
OUTSIDE, PORT = "10.77.0.1", 6379
#: A lost node is noticed after some 5 seconds, in place of Ray's 30: most outages are long enough, some are not.
_HASTY = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 4,
}
#: Of a link that is slow.
_SLOW = ("tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")


def environment(home: Path, **variables: str) -> dict[str, str]:
    """That of a user's shell, with a home, and nothing of Ray, MLflow or ours but the token's mode and `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FSS_", "MLFLOW_", "AWS_"))}
    ours = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_prestart_worker_first_driver": "0",  # they lack the environment that runs ask for
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    return kept | ours | variables


def _do(*words: str) -> None:
    subprocess.run(words, check=True)


class Machine:
    """One network namespace with a Ray node of one CPU."""

    def __init__(self, number: int, home: Path, variables: dict[str, str]):
        self.name, self.address = f"n{number}", f"10.77.0.{10 + number}"
        self.held = False
        """Whether it is down for a while, and is not to be started again."""
        self._copies = home / f"copies{number}"
        self._environment = environment(home, **variables, FSS_CACHE=str(self._copies))
        self._log, self._sockets, self._ray = home / f"{self.name}.log", home / f"r{number}", None
        _do("ip", "netns", "add", self.name)
        _do("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _do("ip", "link", "set", self.name, "master", "bridge", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _do("ip", "-n", self.name, *words)

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """A command on this machine, in a session of its own."""
        with log.open("ab") as told:
            command = ["ip", "netns", "exec", self.name, *words]
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=told, stderr=told, start_new_session=True
            )

    def copy_of(self, root: str) -> Path:
        """Where this machine keeps what it has of a run's root."""
        return self._copies / root.replace("//", "/") if "://" in root else Path(root)

    def join(self, *words: str) -> None:
        """Start its Ray node."""
        command = (RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address", self.address)
        limits = ("--num-cpus", "1", "--object-store-memory", str(100 * 2**20), "--temp-dir", str(self._sockets))
        self._ray = self.start(*command, *limits, *words, log=self._log)

    def ended(self) -> bool:
        """Whether its Ray node is there no more."""
        return self._ray is None or self._ray.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """All that run here."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        found = []
        for pid in listed.stdout.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def kill(self, *spared: int) -> None:
        """End all that run here, but those whose ids are given."""
        while left := [one for one in self.processes() if one.pid not in spared]:
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            time.sleep(0.1)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Its link is down, as long as the block lasts."""
        _do("ip", "link", "set", self.name, "down")
        try:
            yield
        finally:
            _do("ip", "link", "set", self.name, "up")

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Its link passes 1 Mbit/s to it, and as much from it."""
        inside = ("ip", "netns", "exec", self.name)
        _do("tc", "qdisc", "add", "dev", self.name, "root", *_SLOW)
        _do(*inside, "tc", "qdisc", "add", "dev", "eth0", "root", *_SLOW)
        try:
            yield
        finally:
            _do("tc", "qdisc", "del", "dev", self.name, "root")
            _do(*inside, "tc", "qdisc", "del", "dev", "eth0", "root")


class Machines:
    """A head, on which commands run, and two others. A context manager; the block has them kept up."""

    def __init__(self, home: Path, variables: dict[str, str]):
        (home / ".ray").mkdir()
        (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        _do("ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", "bridge", "type", "bridge")
        _do("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "bridge")
        _do("ip", "link", "set", "bridge", "up")
        self.all = [Machine(number, home, variables) for number in range(3)]
        self.head, *self.others = self.all
        self.address = f"{self.head.address}:{PORT}"
        self.driver: subprocess.Popen[bytes] | None = None
        """The command that runs on the head, which outlives a restart of Ray's processes there, or sees to its end."""

    def __enter__(self) -> "Machines":
        self._restart()
        self._keeping = contextlib.ExitStack()
        self._keeping.enter_context(meanwhile("keeper", self._keep))
        return self

    def __exit__(self, *_: object) -> None:
        self._keeping.close()
        for one in self.all:
            one.kill()

    def processes(self) -> list[psutil.Process]:
        """All that run on any of them."""
        return [process for one in self.all for process in one.processes()]

    def wait(self) -> None:
        """Until each has a node that has been there for a while."""
        while sum(_settled(process) for process in self.processes()) < len(self.all):
            time.sleep(0.5)

    def _keep(self, over: threading.Event) -> None:
        while not over.wait(0.5):
            if self.head.ended():
                self._restart()
            for one in self.others:
                if one.ended() and not one.held:
                    one.kill()
                    one.join("--address", self.address)

    def _restart(self) -> None:
        """The head's Ray, and with it all others': it knew of them, and what it knew is lost."""
        for one in self.all:
            one.kill(*([self.driver.pid] if self.driver else []))
        self.head.join(
            *("--head", "--port", str(PORT), "--include-dashboard", "false"),
            *("--system-config", json.dumps(_HASTY)),
        )
        while not self.head.ended() and not _answers(self.head.address, PORT):
            time.sleep(0.2)
        for one in self.others:
            one.join("--address", self.address)


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _settled(process: psutil.Process) -> bool:
    """Whether it is a node that is 5 seconds old."""
    with contextlib.suppress(psutil.Error):
        return process.name() == "raylet" and time.time() - process.create_time() > 5
    return False


def each(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are left."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)
