"""What happens in each round, drawn from a seed: the same seed and number, the same faults."""

import math
import random
from dataclasses import dataclass

#: What is struck, and how. `cut` and `slow` are a link's; the signals are what a terminal and a batch system send.
WAYS = {
    "worker": ("kill", "pause"),
    "driver": ("kill", "pause", "SIGINT", "SIGTERM"),
    "raylet": ("kill", "pause"),
    "node": ("kill", "pause"),
    "gcs": ("kill", "pause"),
    "link": ("cut", "slow"),
    "tracking": ("kill", "pause"),
    "database": ("kill", "pause"),
    "store": ("kill", "pause"),
}
KINDS = tuple((target, way) for target, ways in WAYS.items() for way in ways)
#: Of rounds with two faults, and of rounds in a bucket although no fault asks for one.
_TWICE, _BUCKET = 1 / 3, 1 / 4
#: When a fault may come, as parts of the time that a quiet run takes, and seconds that it may last.
_MOMENTS, _SECONDS = (0.05, 0.9), (1.0, 20.0)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    target: str
    way: str
    moment: float
    """When, 1 = at the end of a quiet run."""
    seconds: float
    """How long it lasts; what is killed is started again after them."""
    pick: float
    """Which of several is struck: 0 = the first, nearly 1 = the last."""

    def __str__(self) -> str:
        return f"{self.target} {self.way}"


@dataclass(frozen=True)
class Round:
    """The faults of one run, and whether it keeps its files in a bucket."""

    number: int
    bucket: bool
    faults: tuple[Fault, ...]


def drawn(seed: int, number: int) -> Round:
    """Round `number`, from 0 on: of as many rounds in a row as there are kinds, each has another one first."""
    turn, place = divmod(number, len(KINDS))
    order = random.Random(f"{seed} {turn}").sample(KINDS, len(KINDS))
    draw = random.Random(f"{seed} {turn} {place}")
    kinds = [order[place], *draw.choices(KINDS, k=int(draw.random() < _TWICE))]
    faults = tuple(sorted((_fault(draw, *kind) for kind in kinds), key=lambda fault: fault.moment))
    asked = any(fault.target == "store" for fault in faults)
    return Round(number, asked or draw.random() < _BUCKET, faults)


def _fault(draw: random.Random, target: str, way: str) -> Fault:
    """Short ones are as likely as long ones, from 1 to 4 seconds as from 5 to 20."""
    low, high = (math.log(seconds) for seconds in _SECONDS)
    seconds = round(math.exp(draw.uniform(low, high)), 1)
    return Fault(target, way, round(draw.uniform(*_MOMENTS), 3), seconds, draw.random())
