"""Put a trained model on a model hub, or into a folder as hubs lay it out, with its model card.

    python -m jobs.push model=runs/demo to=hf://OWNER/NAME
    python -m jobs.push model=runs/demo to=FOLDER

A folder is one of its own: new, empty, or one that this command wrote before, which export.json in it says.
"""

from __future__ import annotations

from cluster.config.push import PushConfig
from jobs._config import Command, run

COMMAND = Command(
    "push",
    __doc__,
    ("model", "to", "public"),
    schema=PushConfig,
    kept="nothing at {to} was touched, or all of it is there; the same command begins again",
)


def push(config: PushConfig) -> None:
    """Push, and say where it is."""
    from cluster.serving.push import push

    print(push(config))


if __name__ == "__main__":
    run(COMMAND, push)
