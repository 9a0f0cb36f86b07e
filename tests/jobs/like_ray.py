"""Ray's library as far as its signal handlers go: they are put and taken by its own code, and nothing is started."""

import contextlib
import ctypes

import ray

from cluster.config import ClusterConfig
from cluster.engine import session as sessions

LIBRARY = ctypes.CDLL(ray._raylet.__file__)


class Node:
    """What is asked of the Ray that is not there."""

    def get_node_id(self):
        return "0"


def started(then):
    """Put the handlers as `ray.init` does, then call `then` before it comes back."""
    LIBRARY._ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb(None, False)
    then()


def ended():
    """Take them as `ray.shutdown` does."""
    LIBRARY._ZN3ray6RayLog21UninstallSignalActionEv()


def session(then=lambda: None):
    """A session of our own with such a Ray, which `then` holds up while it starts."""
    ray.init, ray.shutdown, ray.get_runtime_context = lambda **_: started(then), ended, Node
    sessions.watched = lambda node: contextlib.nullcontext()
    with sessions.session(ClusterConfig()):
        pass
