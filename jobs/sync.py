"""Send the metrics that MLflow has not got yet, after an outage or from another machine.

python -m jobs.sync root=runs name=demo [tracking.uri=http://server:5000]
"""

from __future__ import annotations

from pathlib import Path

from cluster.config import Config
from cluster.tracking.redact import redact
from cluster.tracking.shipper import Shipper, tracking_folder, tracking_place
from jobs._config import load, run


def send(config: Config) -> None:
    """Ship all journals of the run.

    Raises:
        ValueError: if there are none, or some of it could not be sent.
    """
    folder = tracking_folder(config.root, config.name)
    if not any(Path(folder).glob("*.jsonl")):
        raise ValueError(f"expected journals (*.jsonl) in {folder}, found none; check root= and name=")
    uri, experiment = tracking_place(config.tracking, config.root)
    shipper = Shipper(folder, uri, experiment)
    if not shipper.ship_once() or shipper.unsent():
        raise ValueError(f"could not send everything to {redact(uri)}; nothing is lost, try again")
    print(f"sync: everything in {folder} is in MLflow")


if __name__ == "__main__":
    run(load, send)
