"""Look at runs in MLflow's pages; the page of the last pipeline and a table of all runs are printed first.

    python -m jobs.ui root=runs
    python -m jobs.ui root=/mnt/shared/runs port=5001

Where there is a screen, a browser opens on the first of them. The server runs until it is stopped. For one that others
reach, see docs/tracking.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cluster import tracking
from cluster.config.ui import UiConfig
from jobs._config import Command, run

#: What MLflow must find to know its application `model-training`: see `cluster.tracking.training_pages`.
_PLUGIN = Path(tracking.__file__).with_name("plugin")

COMMAND = Command(
    "ui",
    __doc__,
    ("root", "host", "port", "open"),
    schema=UiConfig,
    kept="runs are as they were",
)


def serve(config: UiConfig) -> None:
    """Print the last run's page, then become MLflow's server."""
    from cluster.config.serve import is_loopback
    from cluster.storage.bucket import is_address
    from cluster.tracking import browse, last
    from cluster.tracking.shipper import default_tracking_uri

    if is_address(config.root):
        raise ValueError(
            f"root: expected a folder with mlflow.db, got {config.root}, a bucket, which holds none; open the pages of "
            "the server that tracking.uri= named"
        )
    address = f"http://{config.host}:{config.port}"
    pages = last.pages(config.root, address)
    told = (
        "the last run: {}\nall runs:     {}".format(*pages) if pages else f"no run below {config.root} yet; {address}"
    )
    print(told, flush=True)
    if config.open and is_loopback(config.host):
        browse.later(pages[0] if pages else address)
    server = ["-m", "mlflow", "server", "--backend-store-uri", default_tracking_uri(config.root)]
    place = ["--host", config.host, "--port", str(config.port)]
    one_reader = ["--workers", "1"]  # needs one of the server's four processes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    known = [str(_PLUGIN), str(_PLUGIN.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(known)
    os.execv(sys.executable, [sys.executable, *server, *place, *one_reader, "--app-name", "model-training"])


if __name__ == "__main__":
    run(COMMAND, serve)
