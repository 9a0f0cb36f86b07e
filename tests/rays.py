"""A Ray of its own for a test, started as people start one, `ray start --head`, and ended with all that it started."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class Head:
    """Where it answers, and the environment of whoever may come in: it asks for a token."""

    address: str
    dashboard: str
    environment: dict[str, str]


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def head(home, *arguments, scaling=None, **variables):
    """A head whose user's home is the folder `home`.

    `scaling` makes, of the address at which the head will answer, the configuration of its autoscaler, as text.
    """
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    here = {"HOME": str(home), "RAY_AUTH_MODE": "token", "PATH": f"{Path(RAY).parent}{os.pathsep}{os.environ['PATH']}"}
    environment = os.environ | here | variables
    port, dashboard, agent, client = free_ports(4)
    address, page = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
    if scaling:
        (home / "scaling.yaml").write_text(scaling(address))
        arguments = (*arguments, f"--autoscaling-config={home}/scaling.yaml")
    sockets = tempfile.mkdtemp(prefix="r", dir="/tmp")  # names of Unix sockets must be short
    command = [
        *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--temp-dir", sockets),
        *("--node-ip-address", "127.0.0.1", "--port", str(port), "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-listen-port", str(agent), "--ray-client-server-port", str(client)),
        *("--min-worker-port", "0", "--max-worker-port", "0", *arguments),
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while request(f"{page}/api/version") not in (200, 401):
            assert process.poll() is None, "ray start ended"
            time.sleep(0.5)
        yield Head(address, page, environment)
    finally:
        end(process)
        shutil.rmtree(sockets, ignore_errors=True)


def end(process):
    """End the head and all that it started, if it has not ended by itself."""
    if process.poll() is not None:
        return
    parent = psutil.Process(process.pid)
    family = [*parent.children(recursive=True), parent]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def request(url, token=None):
    """The HTTP status, 0 if nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
