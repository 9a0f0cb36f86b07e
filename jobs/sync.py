"""Send the metrics that MLflow has not got yet, after an outage or from another machine.

    python -m jobs.sync root=runs name=demo
    python -m jobs.sync root=/mnt/shared/runs name=photos tracking.uri=http://server:5000

What MLflow has already is not sent again.
"""

from __future__ import annotations

from pathlib import Path

from cluster.config import Config
from jobs._config import Command, run

COMMAND = Command(
    "sync",
    __doc__,
    ("root", "name", "tracking.uri", "tracking.experiment"),
    kept="what was sent is not sent again; the same command goes on",
)


def send(config: Config) -> None:
    """Ship all journals of the run.

    Raises:
        ValueError: if there are none, or some of it could not be sent.
    """
    from cluster.tracking.shipper import Shipper, default_tracking_uri, tracking_folder

    folder = tracking_folder(config.root, config.name)
    if not any(Path(folder).glob("*.jsonl")):
        raise ValueError(f"expected journals (*.jsonl) in {folder}, found none; check root= and name=")
    uri = config.tracking.uri or default_tracking_uri(config.root)
    shipper = Shipper(folder, uri, config.tracking.experiment)
    if not shipper.ship_once() or shipper.unsent():
        raise ValueError(f"could not send everything to {uri}; nothing is lost, try again")
    print(f"sync: everything in {folder} is in MLflow")


if __name__ == "__main__":
    run(COMMAND, send)
