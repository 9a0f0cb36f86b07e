"""What stands outside of the machines: MLflow's server, the Postgres that holds its runs, and a bucket's door.

All are processes that can be struck.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests import ceph, postgres
from tests.chaos.machines import OUTSIDE, each, environment
from tests.cluster import s3
from tests.places import ROOT
from tests.rays import free_ports

_STORE = 9000
MLFLOW, STORE = f"http://{OUTSIDE}:5000", f"http://{OUTSIDE}:{_STORE}"
#: How a machine reaches the bucket.
LOGIN = {
    "AWS_ENDPOINT_URL": STORE,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": ceph.ID,
    "AWS_SECRET_ACCESS_KEY": ceph.SECRET,
}
#: Where Postgres listens, for MLflow's server alone.
_DATABASE = 5432


class Server:
    """A command that runs until it is struck. A context manager."""

    def __init__(self, command: Sequence[str], home: Path, up: Callable[[], bool]):
        self._command, self._home, self._up = command, home, up

    def start(self) -> None:
        """Start it; it answers some time later."""
        with (self._home / "servers.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment(self._home, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """It, and what it has started."""
        if self._process.poll() is not None:
            return []
        parent = psutil.Process(self._process.pid)
        return [*parent.children(recursive=True), parent]

    def kill(self) -> None:
        """End all of it at once, also what it has started in sessions of their own."""
        each(self.processes(), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Until it answers."""
        while not self._up():
            assert self._process.poll() is None, f"it ended: {' '.join(self._command)}"
            time.sleep(0.3)

    def __enter__(self) -> "Server":
        self.start()
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def database(home: Path) -> Server | None:
    """Postgres; None where it is not installed."""
    if postgres.programs() is None:
        return None
    folder = home / "postgres"
    folder.mkdir()
    home.chmod(0o711)  # it does not run as root
    return Server(postgres.command(folder, _DATABASE), home, lambda: postgres.answers(_DATABASE))


def mlflow(home: Path, *, on_postgres: bool) -> Server:
    """MLflow's own, on SQLite where there is no Postgres."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", OUTSIDE, "--port", "5000", "--workers", "1"]
    command += ["--allowed-hosts", "*", "--artifacts-destination", f"{home}/served"]
    held = postgres.address(_DATABASE) if on_postgres else f"sqlite:///{home}/mlflow.db"
    command += ["--backend-store-uri", held]
    return Server(command, home, lambda: _answers(f"{MLFLOW}/health"))


@contextlib.contextmanager
def store(home: Path) -> Iterator[Server]:
    """Ceph's S3 server; where that is not installed, a door before moto's, which is in this process."""
    with contextlib.ExitStack() as servers:
        if ceph.installed():
            behind = servers.enter_context(ceph.Ceph((*free_ports(1), _STORE), OUTSIDE))
            os.environ |= LOGIN
            yield servers.enter_context(Server(behind.door(), home, behind.answers))
        else:
            servers.enter_context(s3.server())
            inside = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
            command = [sys.executable, "-m", "tests.chaos.servers", str(inside)]
            yield servers.enter_context(Server(command, home, lambda: _answers(STORE)))


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError as error:
        return hasattr(error, "code")  # an answer, if no good one
    return True


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _door(target: int) -> None:
    async def come_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, out = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_pass_on(reader, out), _pass_on(inside, writer))

    server = await asyncio.start_server(come_in, OUTSIDE, _STORE)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_door(int(sys.argv[1])))
