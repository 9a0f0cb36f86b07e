"""Postgres in a folder of its own, where it is installed: what a server of MLflow's keeps its runs in."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

#: Where Debian keeps the programs of each version, beside the PATH.
_DEBIAN = Path("/usr/lib/postgresql")
#: Postgres refuses to run as root, so it is nobody then.
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def programs():
    """The folder of its programs, of the newest version; None if it is not installed."""
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, versions)]))
    return None if found is None else Path(found).parent


def address(port):
    """As MLflow takes it."""
    return f"postgresql://mlflow@127.0.0.1:{port}/postgres"


def command(folder, port):
    """What serves a new database in `folder`, which is empty and can be reached by all, at a port of this machine."""
    as_whom = () if os.geteuid() else _NOBODY
    if as_whom:
        os.chown(folder, 65534, 65534)
    start = (*as_whom, programs() / "initdb", "--pgdata", folder, "--username=mlflow", "--auth=trust")
    subprocess.run([*start, "--encoding=UTF8", "--locale=C"], check=True, capture_output=True, cwd="/")
    settings = ("-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={folder}")
    return [str(word) for word in (*as_whom, programs() / "postgres", "-D", folder, *settings)]


def answers(port):
    """Whether it lets one in."""
    import psycopg

    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(address(port), connect_timeout=10):
        return True
    return False


class Postgres:
    """It runs while the block lasts, and can be killed and started again meanwhile."""

    def __init__(self, port):
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-")  # one of pytest's only its own user can reach
        self._command, self._port = command(Path(self._folder.name), port), port
        self.address = address(port)

    def start(self):
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not answers(self._port):
            assert self._process.poll() is None, "postgres ended"
            time.sleep(0.1)

    def kill(self):
        """End it and all of its sessions at once."""
        for one in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        self._folder.cleanup()
