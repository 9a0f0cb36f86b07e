"""A door for requests in this process, and as many replicas of the model behind it, on Ray Serve, as are asked for.

Uploads are read where they come in, and each image goes to a replica at once: no proxy stands between, which would
carry every upload a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import uvicorn
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from cluster.config import ClusterConfig
from cluster.config.serve import ServeConfig
from cluster.engine import session
from cluster.engine.refused import RefusedError, refusing
from cluster.serving import registry
from cluster.web import app
from cluster.web.finder import Answered, Asked, Finder, Marks, Refused, Support
from cluster.web.port import listen
from fss.backbones.extractor import GPU_IMAGES
from fss.segmenter import Segmenter, read_about

#: Requests that are open at a time; what comes beyond them is told to come later.
_OPEN = 160
#: Seconds that those get which are open when the server ends.
_LEAVE = 5
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class Replica:
    """A model that answers what waits, together; on a thread of its own, so that it says meanwhile that it lives."""

    def __init__(self, folder: str, threads: int, gpu: bool):
        self._finder = Finder(Segmenter.load(folder, "cuda" if gpu else "cpu"))
        self._thread = ThreadPoolExecutor(1, "model", _threads, (threads,))

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
        RefusedError: for a model that cannot be used, a port that is taken, replicas that this machine has no room for.
    """
    with tempfile.TemporaryDirectory() as scratch, listen(config.host, config.port) as listening:
        folder = registry.folder(config.model, Path(scratch)).resolve()
        with refusing():
            read_about(folder)
        cluster = ClusterConfig(address=config.address)
        here = cluster.joined() == "local"
        with session.session(cluster):
            if here:
                _check_room(config)
            with _replicas(config, folder, here) as handle, _door(app.build(Replicas(handle), config), listening):
                yield f"http://{_name(config.host)}:{config.port}"


def _name(host: str) -> str:
    """What others call the machine that listens at `host`."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _replicas(config: ServeConfig, folder: Path, here: bool) -> Iterator[DeploymentHandle]:
    """The replicas, which have loaded the model.

    Raises:
        ValueError: if they do not.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every step
    copies = serve.deployment(
        num_replicas=config.replicas,
        max_ongoing_requests=2 * GPU_IMAGES,  # one batch is computed, the next one gathers
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica},
    )
    name = f"segmentation-{socket.gethostname()}-{config.port}"  # a cluster may serve others too
    serve.start(proxy_location="Disabled", logging_config=_QUIET)
    model = copies(Replica).bind(str(folder), config.cpus_per_replica, config.gpus_per_replica > 0)
    try:
        try:
            handle = serve.run(model, name=name, route_prefix=None, logging_config=_QUIET)
        except RuntimeError as error:
            raise ValueError(f"Ray Serve did not start the model: {error} Do all machines see {folder}?") from error
        yield handle
    finally:
        if not here:  # a Ray of one's own ends as a whole
            _leave(name)


def _leave(name: str) -> None:
    """End the replicas, and Serve if it serves nobody else."""
    serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()


@contextlib.contextmanager
def _door(application: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Answer requests on a thread of its own."""
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_level="warning",
            lifespan="off",
            limit_concurrency=_OPEN,
            timeout_graceful_shutdown=_LEAVE,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="door")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)


def _check_room(config: ServeConfig) -> None:
    here = ray.cluster_resources()
    for key, name in (("cpus_per_replica", "CPU"), ("gpus_per_replica", "GPU")):
        wanted, there = config.replicas * getattr(config, key), here.get(name, 0)
        if wanted > there:
            raise RefusedError(
                f"replicas: expected at most {there:g} {name}s on this machine, got {config.replicas} of "
                f"{getattr(config, key):g}; set replicas, {key} or address"
            )
