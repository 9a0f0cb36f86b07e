"""A thread that looks at something as long as a block of code lasts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def meanwhile(name: str, look: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `look(over, *arguments)` on a thread called `name`, which ends when the event `over` is set: at the end.

    The end waits for it. Where the process ends first, it goes as it is.
    """
    over = threading.Event()
    thread = threading.Thread(target=look, args=(over, *arguments), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
