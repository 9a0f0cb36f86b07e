"""What was used last, and no more of it than fits."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by their keys. Beyond `most` of them, or a weight of `heaviest` in all, those used longest ago go.

    A single value that is heavier stays until the next one comes.
    """

    def __init__(self, most: int, heaviest: float = math.inf, weigh: Callable[[V], float] = lambda _: 0.0):
        self._most, self._heaviest, self._weigh = most, heaviest, weigh
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, which is used now; None if there is none, or it has gone."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Keep a value, in place of the one that its key had."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self) > 1 and (
            len(self) > self._most or sum(map(self._weigh, self._values.values())) > self._heaviest
        ):
            self._values.popitem(last=False)

    def items(self) -> list[tuple[K, V]]:
        """All of them, those used last at the end."""
        return list(self._values.items())

    def last(self) -> K | None:
        """The key that was used last."""
        return next(reversed(self._values), None)
