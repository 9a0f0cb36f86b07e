"""What is said of a configuration that cannot work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class RefusedError(ValueError):
    """What cannot work as it is configured, or with the files and machines that are there; nothing was started."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Around what the library looks at before any work: its ValueError becomes a RefusedError."""
    try:
        yield
    except RefusedError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error
