"""The machines that training needs: all at once, and each on the network by which the others reach it."""

from __future__ import annotations

import os

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.util import placement_group, remove_placement_group

from cluster.engine import room

#: Where gloo and NCCL read by which interface a machine is reached.
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def gather(number: int, taken: room.Resources) -> None:
    """Wait, and say what for, until there is room for so many workers at once; machines that may come are asked for.

    Ray Train would wait too, in silence. The room is free again when this returns, for Ray Train to take.
    """
    group = placement_group([dict(taken)] * number)
    try:
        for _ in room.awaited(
            [group.ready()], lambda: f"room for {number} training workers of {room.told(taken)} each"
        ):
            pass
    finally:
        remove_placement_group(group)


class NetworkConfig(TorchConfig):
    """A process group whose libraries use the network by which Ray reaches each machine.

    Left to themselves they ask for the address of the host's own name, which is the machine's loopback on Debian and
    Ubuntu, where no other machine reaches it.
    """

    @property
    def backend_cls(self) -> type:
        """Ray's, after each worker has chosen its interface."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray says which class it is only so
    def on_start(self, worker_group, backend_config):  # type: ignore[no-untyped-def]
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """In a training worker: have gloo and NCCL use the interface of its node's address, unless the user said which."""
    own = interface(ray.util.get_node_ip_address())
    for name in VARIABLES:
        if own:
            os.environ.setdefault(name, own)


def interface(address: str) -> str | None:
    """The network interface of this machine that has the IP address; None if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return None
