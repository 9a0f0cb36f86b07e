"""A real MLflow server for a test."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request

from tests.rays import free_ports


@contextlib.contextmanager
def served(folder, database):
    """The address of a server that keeps its runs in `database` and its files below `folder`."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", f"{folder}/served"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, "mlflow server ended"
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60):
        return True
    return False
