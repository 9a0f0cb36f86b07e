"""What a corpus of a given size will cost: arithmetic over measured costs of its stages (`cluster.planning.calibrate`).

A stage is one or several steps; a step is units of about `unit` items each, which workers take one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """What one step costs, measured. Seconds are those of one worker, bytes those of files and of the user's images."""

    stage: str
    step: str
    seconds: float
    """A worker's time for one item."""
    seconds_unit: float = 0.0
    """A worker's time for each unit beside its items': opening what it reads, publishing what it writes."""
    driver: float = 0.0
    """Seconds of the driver, of which there is one, for each unit."""
    read: float = 0.0
    """Bytes read for one item."""
    written: float = 0.0
    """Bytes written for one item."""
    written_unit: float = 0.0
    """Bytes written for each unit beside its items': headers of its files, its record."""
    base: float = 0.0
    """Bytes of a worker's memory before it holds a unit: interpreter, libraries, backbone."""
    held: float = 0.0
    """Bytes of a worker's memory for each item of its unit."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the seconds are made of, by name, as far as it was measured; the rest is called after the step."""


@dataclass(frozen=True)
class Amount:
    """How much of a step there is: items, items in a unit, and how often all units are gone through."""

    items: float
    unit: float
    passes: int = 1
    resident: float = 0.0
    """Bytes that all workers together keep in memory through the passes."""

    @property
    def units(self) -> int:
        """Units of the step."""
        return max(1, math.ceil(self.items / self.unit))


@dataclass(frozen=True)
class Machines:
    """What the steps run on: processes, the CPUs and GPUs of each, and limits of all together (None: not a limit)."""

    workers: int
    cpus: float = 1
    gpus: float = 0
    network: float | None = None
    """Bytes a second from the user's images to the cluster."""
    disk: float | None = None
    """Bytes a second that the run's file system reads or writes."""


@dataclass(frozen=True)
class PlanRow:
    """A step in full: seconds on these machines, hours of CPUs and GPUs, bytes, and what it waits for (`roof`)."""

    stage: str
    step: str
    items: float
    seconds: float
    cpu_hours: float
    gpu_hours: float
    read: float
    written: float
    memory: float
    roof: str


def row(cost: Cost, amount: Amount, machines: Machines, *, remote: bool = False) -> PlanRow:
    """One step's time, bytes and memory.

    Workers take whole units, so the last round may leave some idle. The step takes as long as the slowest of workers,
    driver, network (if it reads the user's images, `remote`) and disk, which are assumed to overlap.
    """
    rounds = math.ceil(amount.units / machines.workers) * amount.passes
    unit = min(amount.unit, amount.items)
    compute = rounds * (unit * cost.seconds + cost.seconds_unit)
    worked = amount.passes * (amount.items * cost.seconds + amount.units * cost.seconds_unit)
    read, written = amount.items * cost.read, amount.items * cost.written + amount.units * cost.written_unit
    waits = {_slowest(cost, unit): compute, "driver": amount.units * amount.passes * cost.driver}
    if remote and machines.network:
        waits["network"] = read / machines.network
    if machines.disk:
        waits["disk"] = (written + (0 if remote else read)) / machines.disk
    roof = max(waits, key=lambda name: waits[name])
    share = worked / 3600
    return PlanRow(
        stage=cost.stage,
        step=cost.step,
        items=amount.items,
        seconds=waits[roof],
        cpu_hours=share * machines.cpus,
        gpu_hours=share * machines.gpus,
        read=read,
        written=written,
        memory=cost.base + unit * cost.held + amount.resident / machines.workers,
        roof=roof,
    )


def _slowest(cost: Cost, unit: float) -> str:
    """The largest part of a step, or the step itself if what was not measured is larger."""
    rest = cost.seconds + cost.seconds_unit / unit - sum(cost.parts.values())
    return max({**cost.parts, cost.step: rest}.items(), key=lambda part: part[1])[0]


def bottleneck(rows: Sequence[PlanRow]) -> str:
    """What the longest part of the plan waits for, with its share of the time."""
    total = sum(one.seconds for one in rows)
    waits: dict[str, float] = {}
    for one in rows:
        waits[one.roof] = waits.get(one.roof, 0.0) + one.seconds
    name = max(waits, key=lambda wait: waits[wait])
    longest = max(rows, key=lambda one: one.seconds)
    return f"{name} ({100 * waits[name] / max(total, 1e-12):.0f} % of the time); the longest stage is {longest.stage}"


def table(rows: Sequence[PlanRow]) -> Iterator[str]:
    """The plan as lines of a table with its sums."""
    yield (
        f"{'step':<16}{'items':>9}{'time':>12}{'CPU-hours':>11}{'GPU-hours':>11}{'read':>10}{'written':>10}"
        f"{'memory':>10}  limited by"
    )
    for one in rows:
        yield _line(f"{one.stage} {one.step}" if one.step != one.stage else one.stage, one)
    total = PlanRow(
        stage="sum",
        step="sum",
        items=math.nan,
        seconds=sum(one.seconds for one in rows),
        cpu_hours=sum(one.cpu_hours for one in rows),
        gpu_hours=sum(one.gpu_hours for one in rows),
        read=sum(one.read for one in rows),
        written=sum(one.written for one in rows),
        memory=max(one.memory for one in rows),
        roof="",
    )
    yield _line("sum", total)


def _line(name: str, one: PlanRow) -> str:
    items = "" if math.isnan(one.items) else number(one.items)
    return (
        f"{name:<16}{items:>9}{duration(one.seconds):>12}{number(one.cpu_hours):>11}{number(one.gpu_hours):>11}"
        f"{size(one.read):>10}{size(one.written):>10}{size(one.memory):>10}  {one.roof}"
    ).rstrip()


def number(value: float) -> str:
    """To three digits, with commas from a thousand on, and as a power from a million on."""
    return f"{value:.3g}" if value < 1000 else f"{value:.2e}" if value >= 1e6 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader thinks in.

    >>> duration(0.5), duration(90), duration(5400), duration(864_000), duration(1e9)
    ('0.5 s', '1.5 min', '1.5 h', '10 days', '31.7 years')
    """
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400 * 2), ("days", 86400, 86400 * 730)):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / (365.25 * 86400):.3g} years"


def size(count: float) -> str:
    """Bytes with a unit of powers of 1000.

    >>> size(12), size(1500), size(2e9), size(5.5e15)
    ('12 B', '1.5 kB', '2 GB', '5.5 PB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
