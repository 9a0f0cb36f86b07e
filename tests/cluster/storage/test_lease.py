"""A lock in a bucket: who gives signs of life has it, who gives none has lost it."""

import logging
import time

import pytest

from cluster.engine.publish import LOCK, only_writer
from cluster.storage import bucket, lease, paths
from tests.cluster import s3

STORES = s3.kinds()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(lease, "EVERY", 0.05)
    monkeypatch.setattr(lease, "DEAD", 1.0)
    monkeypatch.setattr(lease, "_LOOK", 0.02)


def elsewhere(folder, machine, name="second"):
    machine(name)
    return paths.place(bucket.address(folder))


def test_a_second_writer_is_refused_on_this_machine_and_on_another(folder, machine, hasty):
    with only_writer(folder):
        with pytest.raises(ValueError, match=r"another run is writing s3://bucket/"), only_writer(folder):
            pass
        there = elsewhere(folder, machine)
        with pytest.raises(ValueError, match="another run is writing"), only_writer(there):
            pass
    with only_writer(there):
        pass
    assert bucket.listing(bucket.key(folder)) == {}


def test_an_error_inside_is_none_of_the_lock(folder, hasty):
    with pytest.raises(BlockingIOError), only_writer(folder):
        raise BlockingIOError
    assert bucket.listing(bucket.key(folder)) == {}


@pytest.fixture
def killed(folder, hasty, monkeypatch):
    """The folder, whose writer was killed: nobody gave the lock back."""
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_give_back", lambda *_: None)
        with only_writer(folder):
            pass
    return folder


def test_who_was_killed_here_is_followed_at_once(killed, monkeypatch):
    monkeypatch.setattr(lease, "_silent", lambda *_: pytest.fail("nothing to wait for"))
    dead = lease._holder(bucket.get(bucket.key(killed / LOCK)))
    with only_writer(killed):
        assert (killed / LOCK).read_text() == lease._holder(bucket.get(bucket.key(killed / LOCK))) != dead


def test_who_was_killed_elsewhere_is_followed_after_a_silence(killed, machine, monkeypatch):
    there = elsewhere(killed, machine)
    with only_writer(there):
        holder = lease._holder(bucket.get(bucket.key(there / LOCK)))
        assert (there / LOCK).read_text() == holder
    assert bucket.listing(bucket.key(killed)) == {}


def test_a_lock_that_is_given_back_while_one_waits_is_taken(killed, machine, monkeypatch):
    there, look = elsewhere(killed, machine), bucket.get_tagged

    def given_back(name):
        found = look(name)
        bucket.remove([name])
        return found

    monkeypatch.setattr(bucket, "get_tagged", given_back)
    with only_writer(there):
        assert lease._holder(bucket.get(bucket.key(there / LOCK))) == (there / LOCK).read_text()


def test_who_was_silent_for_long_is_told_and_leaves_the_lock_alone(folder, hasty, caplog):
    name = bucket.key(folder / LOCK)
    with caplog.at_level(logging.WARNING), only_writer(folder):
        bucket.put(name, lease._word("another", 0))
        while "was taken over by another run" not in caplog.text:  # else the test's own limit ends it
            time.sleep(0.02)
    assert "was taken over by another run" in caplog.text
    assert lease._holder(bucket.get(name)) == "another"


def test_a_store_that_is_away_for_a_moment_costs_no_lock(folder, hasty, monkeypatch):
    signs, put_if = [], bucket.put_if

    def away(name, data, tag):
        signs.append(tag)
        if len(signs) == 2:
            raise ConnectionError
        return put_if(name, data, tag)

    monkeypatch.setattr(bucket, "put_if", away)
    with only_writer(folder):
        while len(signs) < 5:
            time.sleep(0.02)
    assert signs[1] == signs[2] != signs[3]
