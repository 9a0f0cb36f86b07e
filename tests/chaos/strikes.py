"""Doing to a run what the plan says, and undoing it."""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from tests.chaos.machines import Machine, Machines, each
from tests.chaos.plan import Fault
from tests.chaos.servers import Server

#: Of Ray's processes those that wait for work, and those that only look on.
_IDLE = ("ray::IDLE", "ray::SPILL_", "ray::RESTORE_", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
#: Seconds in which a command that is told to end has to, see jobs/_stop.py.
_PROMPT = 5.0


@dataclass(frozen=True)
class Yard:
    """All that can be struck."""

    machines: Machines
    tracking: Server
    database: Server
    """What holds the runs of `tracking`: that itself, if there is no Postgres."""
    store: Server

    def server(self, target: str) -> Server | None:
        """The server of that name; None if it names something else."""
        return {"tracking": self.tracking, "database": self.database, "store": self.store}.get(target)


class TooLateError(Exception):
    """The run was over before there was anything to strike."""


class NotEndedError(Exception):
    """The command went on although it was told to end, or did not end by itself."""


def strike(fault: Fault, yard: Yard, over: threading.Event) -> str:
    """Let the fault happen, last and end; what was struck.

    Raises:
        TooLateError: if `over` is set before it can.
        NotEndedError: if the command does not end soon, and by itself, after a signal.
    """
    if fault.target == "link":
        machine = _machine(fault, yard)
        with machine.cut() if fault.way == "cut" else machine.slow():
            time.sleep(fault.seconds)
        return machine.name
    if server := yard.server(fault.target):
        return _server(fault, server)
    if (fault.target, fault.way) == ("node", "kill"):
        with _down(_machine(fault, yard)) as machine:
            machine.kill()
            time.sleep(fault.seconds)
        return machine.name
    return _processes(fault, yard, over)


def _processes(fault: Fault, yard: Yard, over: threading.Event) -> str:
    while not (found := _FOUND[fault.target](fault, yard)):
        if over.wait(0.1):
            raise TooLateError
    told = _title(found[0]) if fault.target == "worker" else ""
    if fault.way == "pause":
        with _paused(found):
            time.sleep(fault.seconds)
    elif fault.way == "kill":
        each(found, signal.SIGKILL)
    else:
        _told_to_end(yard.machines.driver, signal.Signals[fault.way])
    return told


def _told_to_end(driver: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    assert driver is not None
    driver.send_signal(number)
    try:
        driver.wait(_PROMPT)
    except subprocess.TimeoutExpired:
        raise NotEndedError(f"the command did not end within {_PROMPT:g} s of {number.name}") from None
    if driver.returncode != 128 + number:
        raise NotEndedError(f"the command ended with {driver.returncode} at {number.name}, expected {128 + number}")


def _server(fault: Fault, server: Server) -> str:
    if fault.way == "pause":
        with _paused(server.processes()):
            time.sleep(fault.seconds)
    else:
        server.kill()
        time.sleep(fault.seconds)
        server.start()
    return ""


@contextlib.contextmanager
def _paused(processes: list[psutil.Process]) -> Iterator[None]:
    each(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        each(processes, signal.SIGCONT)


@contextlib.contextmanager
def _down(machine: Machine) -> Iterator[Machine]:
    """Ray is not started again there as long as the block lasts."""
    machine.held = True
    try:
        yield machine
    finally:
        machine.held = False


def working(place: Machine | Machines) -> list[psutil.Process]:
    """Ray's processes that have work of a run, by their ids."""
    found = {one.pid: one for one in place.processes() if _title(one).startswith("ray::")}
    return [found[pid] for pid in sorted(found) if not _title(found[pid]).startswith(_IDLE)]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return "".join(process.cmdline()[:1])
    return ""


def _picked(fault: Fault, among: list[Any]) -> list[Any]:
    return among[int(fault.pick * len(among)) :][:1]


def _machine(fault: Fault, yard: Yard) -> Machine:
    """One that is not the head; if any has work, one of those."""
    others = yard.machines.others
    (machine,) = _picked(fault, [one for one in others if working(one)] or others)
    return machine


def _named(name: str, machine: Machine) -> list[psutil.Process]:
    found = []
    for one in machine.processes():
        with contextlib.suppress(psutil.Error):
            found += [one] if one.name() == name else []
    return found


def _driver(fault: Fault, yard: Yard) -> list[psutil.Process]:
    driver = yard.machines.driver
    return [psutil.Process(driver.pid)] if driver and driver.poll() is None else []


_FOUND: dict[str, Callable[[Fault, Yard], list[psutil.Process]]] = {
    "worker": lambda fault, yard: _picked(fault, working(yard.machines)),
    "driver": _driver,
    "raylet": lambda fault, yard: _named("raylet", _machine(fault, yard)),
    "node": lambda fault, yard: _machine(fault, yard).processes(),
    "gcs": lambda fault, yard: _named("gcs_server", yard.machines.head),
}
