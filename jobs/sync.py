"""Send the metrics that MLflow has not got yet, after an outage or from another machine.

    python -m jobs.sync root=runs name=demo
    python -m jobs.sync root=/mnt/shared/runs name=photos tracking.uri=http://server:5000

What MLflow has already is not sent again.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cluster.config import Config
from cluster.engine.refused import RefusedError
from jobs._config import Command, load, run

COMMAND = Command(
    "sync",
    __doc__,
    ("root", "name", "tracking.uri", "tracking.experiment"),
    reader=functools.partial(load, thorough=False),
    kept="what was sent is not sent again; the same command goes on",
)


def send(config: Config) -> None:
    """Ship all journals of the run, and compare them with what the server holds.

    Raises:
        RefusedError: if there are none.
        ValueError: if some of it could not be sent, or a journal is damaged.
    """
    from cluster.storage.bucket import address
    from cluster.tracking.audit import gaps
    from cluster.tracking.journal import catch_up
    from cluster.tracking.redact import redact
    from cluster.tracking.shipper import Shipper, tracking_folder, tracking_place

    folder = tracking_folder(config.root, config.name)
    catch_up(folder)
    journals = sorted(Path(folder).glob("*.jsonl"))
    if not journals:
        raise RefusedError(f"expected journals (*.jsonl) in {address(folder)}, found none; check root= and name=")
    uri, experiment = tracking_place(config.tracking, config.root)
    shipper = Shipper(folder, uri, experiment)
    if not shipper.ship_once() or shipper.unsent():
        raise ValueError(f"could not send everything to {redact(uri)}; nothing is lost, try again")
    for name, count in shipper.repair().items():
        print(f"sync: {name}: {count} values were not in MLflow although they had been sent; sent again")
    if shipper.repair():
        raise ValueError(f"{redact(uri)} takes values of {address(folder)} and does not keep them; look at its own log")
    damaged = [f"{address(path)}: events {gaps(path)}" for path in journals if gaps(path)]
    if damaged:
        raise ValueError(f"what can be read is in MLflow, but these journals are damaged: {'; '.join(damaged)}")
    print(f"sync: everything in {address(folder)} is in MLflow")


if __name__ == "__main__":
    run(COMMAND, send)
