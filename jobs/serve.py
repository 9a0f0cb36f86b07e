"""Serve a trained model: an HTTP API, a page to paint and click on, and what annotation tools ask of a model.

    python -m jobs.serve model=runs/demo
    python -m jobs.serve model=runs/demo port=8080 replicas=2 label_studio=http://localhost:8081
    python -m jobs.serve model=FOLDER host=0.0.0.0 token=0123456789abcdef0123

The page is printed when it answers; the server runs until it is stopped. It answers this machine alone, unless a token
is set. With address= the replicas run on a cluster, by Ray Serve; the page is still here. See docs/serve.md.
"""

from __future__ import annotations

import threading

from cluster.config.serve import ServeConfig
from jobs._config import Command, run

COMMAND = Command(
    "serve",
    __doc__,
    (
        "model",
        "host",
        "port",
        "token",
        "replicas",
        "cpus_per_replica",
        "gpus_per_replica",
        "address",
        "threshold",
        "presence",
        "edges",
        "label_studio",
    ),
    schema=ServeConfig,
    kept="the server has ended; what was shown to it is forgotten",
)


def serve(config: ServeConfig) -> None:
    """Serve until a signal comes."""
    from cluster.web.deployment import running

    print(f"starting Ray and {config.model}, for some seconds", flush=True)
    with running(config) as page:
        print(f"serving {config.model}: {page}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    run(COMMAND, serve)
