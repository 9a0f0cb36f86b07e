"""The application on Ray Serve: one door, and as many replicas of the model as are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import socket
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from cluster.config import ClusterConfig
from cluster.config.serve import ServeConfig
from cluster.engine import session
from cluster.serving import registry
from cluster.web import app
from cluster.web.finder import Answered, Asked, Finder, Marks, Refused, Support
from fss.backbones.extractor import GPU_IMAGES
from fss.segmenter import Segmenter, read_about

_APP, _MODEL = "segmentation", "Replica"
#: Requests that the door works on, and that wait for it: what comes beyond them is told to come later.
_OPEN, _WAITING = 32, 128
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class Replica:
    """A model that answers what waits, together; on a thread of its own, so that it says meanwhile that it lives."""

    def __init__(self, folder: str, config: ServeConfig):
        self._finder = Finder(Segmenter.load(folder, "cuda" if config.gpus_per_replica else "cpu"))
        self._thread = ThreadPoolExecutor(1, "model", _threads, (config.cpus_per_replica,))

    async def about(self) -> dict[str, Any]:
        """See `Finder.about`."""
        return self._finder.about

    async def drawn(self, image: bytes, shown: Marks) -> Support | Refused:
        """See `Finder.drawn`."""
        return await self._alone(self._finder.drawn, image, shown)

    @serve.batch(
        max_batch_size=GPU_IMAGES, batch_wait_timeout_s=0
    )  # what comes while a batch is computed is the next one
    async def find(self, asked: Sequence[Asked]) -> list[Answered]:
        """See `Finder.find`."""
        return await self._alone(self._finder.find, asked)

    async def _alone(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(work, *arguments))


class Replicas:
    """The replicas, as the application asks them."""

    def __init__(self, handle: DeploymentHandle):
        self._handle = handle

    async def about(self) -> dict[str, Any]:
        """See `Finder.about`."""
        return await self._handle.about.remote()

    async def drawn(self, image: bytes, shown: Marks) -> Support | Refused:
        """See `Finder.drawn`."""
        return await self._handle.drawn.remote(image, shown)

    async def find(self, asked: Asked) -> Answered:
        """See `Finder.find`."""
        return await self._handle.find.remote(asked)


@contextlib.contextmanager
def running(config: ServeConfig) -> Iterator[str]:
    """A server for as long as this lasts; where its page is.

    Raises:
        ValueError: for a model that cannot be used, a port that is taken, replicas that this machine has no room for.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry.folder(config.model, Path(scratch)).resolve()
        read_about(folder)
        cluster = ClusterConfig(address=config.address)
        here = cluster.joined() == "local"
        if here:
            _check_port(config)
        with session.session(cluster):
            _check_room(config) if here else _check_alone()
            try:
                _start(config, folder)
                yield f"http://{_name(config.host)}:{config.port}"
            finally:
                if not here:  # a Ray of one's own ends as a whole
                    serve.shutdown()


def _name(host: str) -> str:
    """What others call the machine that listens at `host`."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _start(config: ServeConfig, folder: Path) -> None:
    """Start Ray Serve and the application, and wait until it answers.

    Raises:
        ValueError: if it does not.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every step
    known = dataclasses.replace(config, token=config.secret, label_studio_key=config.label_studio_secret)
    options = {"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica}
    copies = serve.deployment(
        name=_MODEL,
        num_replicas=config.replicas,
        max_ongoing_requests=2 * GPU_IMAGES,  # one batch is computed, the next one gathers
        ray_actor_options=options,
    )
    model = copies(Replica).bind(str(folder), known)

    def door() -> ASGIApp:
        return app.build(Replicas(serve.get_deployment_handle(_MODEL, _APP)), known)

    front = serve.deployment(
        name="Door", max_ongoing_requests=_OPEN, max_queued_requests=_WAITING, ray_actor_options={"num_cpus": 0}
    )
    serve.start(
        proxy_location="HeadOnly",
        http_options=HTTPOptions(host=config.host, port=config.port),
        logging_config=_QUIET,
    )
    try:
        serve.run(front(serve.ingress(door)()).bind(model), name=_APP, route_prefix="/", logging_config=_QUIET)
    except RuntimeError as error:
        raise ValueError(f"Ray Serve did not start the model: {error} Do all machines see {folder}?") from error


def _threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)


def _check_port(config: ServeConfig) -> None:
    try:
        with socket.create_server((config.host, config.port)):
            pass
    except OSError as error:
        raise ValueError(
            f"port: expected a free port of {config.host}, got {config.port} ({error.strerror}); set port=NUMBER"
        ) from error


def _check_alone() -> None:
    """A cluster's Serve listens where its first application said, which nobody would look at."""
    if serve.status().proxies:
        raise ValueError(
            "address: expected a cluster on which no Ray Serve runs, got one; end that by `serve shutdown`"
        )


def _check_room(config: ServeConfig) -> None:
    here = ray.cluster_resources()
    for key, name in (("cpus_per_replica", "CPU"), ("gpus_per_replica", "GPU")):
        wanted, there = config.replicas * getattr(config, key), here.get(name, 0)
        if wanted > there:
            raise ValueError(
                f"replicas: expected at most {there:g} {name}s on this machine, got {config.replicas} of "
                f"{getattr(config, key):g}; set replicas, {key} or address"
            )
