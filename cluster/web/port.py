"""The port of a server, taken before anything else is begun."""

from __future__ import annotations

import socket

from cluster.engine.refused import RefusedError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `port` from now on.

    Raises:
        RefusedError: if somebody else does, or this machine is not called `host`.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RefusedError(
            f"port: expected a free port of {host}, got {port} ({error.strerror}); set port=NUMBER"
        ) from error
