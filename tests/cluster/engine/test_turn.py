"""Units beside each other in a worker: what they read is there before their turn, and publishing is no part of it."""

import time
from pathlib import Path

import pytest

from cluster.engine import turn

UNITS = 5


class Beside:
    """Of its units, each notes what it does; it goes on only where another is in the phase beside it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def ahead(self, unit):
        self._note("ahead", unit)

    def __call__(self, unit):
        alone = self.folder / "computing"
        alone.touch(exist_ok=False)
        begun = self._note("begun", unit)
        self._wait_for("ahead", begun + 1)
        alone.unlink()
        turn.over()
        self._wait_for("begun", begun + 1)
        return unit

    def _note(self, phase, unit):
        (self.folder / f"{phase}-{unit}").touch()
        return self._number(phase)

    def _number(self, phase):
        return len(list(self.folder.glob(f"{phase}-*")))

    def _wait_for(self, phase, number):
        """Until so many units have come to a phase, or all."""
        end = time.monotonic() + 60
        while self._number(phase) < min(number, UNITS):
            if time.monotonic() > end:
                raise TimeoutError(f"no unit {phase} beside another")
            time.sleep(0.01)


def test_one_computes_while_another_is_read_and_another_published(pools, tmp_path):
    assert sorted(pools[1].map(Beside(tmp_path), range(UNITS))) == [(unit, unit) for unit in range(UNITS)]


def test_a_unit_that_fails_frees_the_turn(pools):
    def fails(unit):
        raise ValueError(f"unit {unit}")

    assert [result.message for _, result in sorted(pools[1].map(fails, range(3)))] == [
        f"ValueError: unit {unit}" for unit in range(3)
    ]


def test_a_turn_is_over_once():
    with turn.taken():
        turn.over()
        turn.over()
    turn.over()
    with turn.taken(), pytest.raises(RuntimeError, match="ours"):
        raise RuntimeError("ours")
    with turn.taken():
        assert turn._turn.locked()
    assert not turn._turn.locked()
