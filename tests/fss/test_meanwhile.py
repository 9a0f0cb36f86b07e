"""What runs beside a block ends with it, also when that fails."""

import threading

import pytest

from fss.meanwhile import meanwhile


def test_it_runs_beside_and_has_ended_afterwards():
    begun, told = threading.Event(), []

    def look(over, word):
        begun.set()
        over.wait()
        told.append((word, threading.current_thread().name))

    def block():
        with meanwhile("beside", look, "seen"):
            assert begun.wait(300)
            assert told == []
            raise ValueError("the block")

    with pytest.raises(ValueError, match="the block"):
        block()
    assert told == [("seen", "beside")]
