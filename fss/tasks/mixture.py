"""The order of episodes from several schedules in fixed proportions: as exact as whole numbers allow, at any time."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

from fss.tasks.task import Schedule


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Episode i is of the part that is furthest behind its share; it is that part's next one.

    Of the first n episodes a part has its share of n, to within one episode of two parts and about one of more; of
    every `sum(weights)` episodes (by their common divisor) it has exactly its share. Each part runs through epochs of
    its own, a small one more often, and its shards are numbered after those of the parts before it. Which episode i is,
    follows from the seeds and i alone.

    Raises:
        ValueError: for weights that are not one positive number a part.
    """

    parts: tuple[Schedule, ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.weights) or min(self.weights) < 1:
            raise ValueError(f"expected a weight from 1 for each of {len(self.parts)} parts, got {self.weights}")

    def locate(self, episode: int) -> tuple[int, int, int]:
        """(epoch of its part, shard, position in the shard) of an episode."""
        part, number = self.of(episode)
        epoch, shard, position = self.parts[part].locate(number)
        return epoch, shard + self.first_shards[part], position

    def of(self, episode: int) -> tuple[int, int]:
        """(part, number of the episode among those of this part) of an episode."""
        order, before = _turns(self.weights)
        turns, place = divmod(episode, len(order))
        part = order[place]
        return part, turns * order.count(part) + before[place]

    @property
    def first_shards(self) -> list[int]:
        """The number of the first shard of each part."""
        return list(itertools.accumulate((len(part.counts) for part in self.parts[:-1]), initial=0))

    @property
    def size(self) -> int:
        """Episodes from the first one before any part begins anew."""
        order, _ = _turns(self.weights)
        ends = []
        for part, schedule in enumerate(self.parts):
            places = [place for place, chosen in enumerate(order) if chosen == part]
            turns, rest = divmod(schedule.size, len(places))
            ends.append(turns * len(order) + places[rest])
        return min(ends)


@functools.lru_cache(maxsize=8)
def _turns(weights: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Whose turn it is in one round, and how many turns of it have been before."""
    divisor = math.gcd(*weights)
    shares = [weight // divisor for weight in weights]
    total, taken = sum(shares), [0] * len(shares)
    order, before = [], []
    for place in range(1, total + 1):
        part = max(range(len(shares)), key=lambda p: (shares[p] * place - taken[p] * total, -p))
        order.append(part)
        before.append(taken[part])
        taken[part] += 1
    return order, before
