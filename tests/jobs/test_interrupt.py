"""Ctrl-C, SIGTERM and a disk that takes nothing: one plain line, its exit status, never a traceback."""

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from jobs._config import CONF

#: A job whose work says that it has begun, and then does what is tried here.
JOB = """
import errno, os, signal, sys, threading, time, types
from jobs._config import Command, run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background ignores it

def work(config):
    {setup}
    os.write(1, b"begun\\n")  # by no stream, which a signal that comes at once would find in the middle of a print
    {act}

run(Command("pipeline", "A job.", reader=lambda _: types.SimpleNamespace(root="here", name="demo")), work)
"""
SLEEP = "time.sleep(600)"
#: What a job may be in when it is stopped: (preparation, what it then does).
MOMENTS = {
    "asleep": ("pass", SLEEP),
    "under Ray's handler, which exits with the number of the signal": (
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number)); "
        "signal.signal(signal.SIGINT, lambda number, frame: sys.exit(0))",
        SLEEP,
    ),
    "failing because its workers were stopped too": (
        "stopped = threading.Event(); handler = lambda number, frame: stopped.set(); "
        "signal.signal(signal.SIGTERM, handler); signal.signal(signal.SIGINT, handler)",
        "stopped.wait(); raise RuntimeError('the worker died')",
    ),
}
#: The same around a Ray: what the job has done when it says that it has begun.
AROUND_RAY = {
    "while Ray starts": "begun = lambda: (os.write(1, b'begun\\n'), time.sleep(600)); like_ray.session(begun)",
    "when Ray has ended": "like_ray.session()",
}
KEPT = "what is finished is kept in here/demo; the same command goes on from there"


@pytest.fixture
def start(tmp_path):
    """A function (setup, act) -> a job that has begun; nothing of it outlives the test."""
    jobs = []
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}

    def begin(setup, act):
        job = subprocess.Popen(
            [sys.executable, "-c", JOB.format(setup=setup, act=act)],
            cwd=CONF.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(job)
        assert job.stdout.readline() == "begun\n", job.communicate()[1]
        return job

    yield begin
    for job in jobs:
        job.kill()
        job.communicate()


def said(job):
    """What the job wrote to stderr beside the log of its beginning, and its exit status."""
    lines = job.communicate()[1].splitlines()
    return [line for line in lines if not line.startswith("INFO ")], job.returncode


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_a_job_with_one_line(start, moment, number, name):
    job = start(*MOMENTS[moment])
    job.send_signal(number)
    assert said(job) == ([f"stopped by {name}: {KEPT}"], 128 + number)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("moment", AROUND_RAY)
def test_rays_library_leaves_a_signal_to_us_while_it_comes_and_when_it_has_gone(start, moment, number, name):
    job = start(f"from tests.jobs import like_ray; {AROUND_RAY[moment]}", SLEEP)
    job.send_signal(number)
    assert said(job) == ([f"stopped by {name}: {KEPT}"], 128 + number)


def filled(pipe):
    """Wait until there is something in a pipe; a print of more than pipes hold does not end then."""
    while not struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        time.sleep(0.01)


@pytest.mark.parametrize("act", [SLEEP, "print('x' * 2**20)"], ids=["asleep", "in the middle of a print"])
def test_the_line_comes_while_the_work_is_deaf_and_a_second_signal_ends_it(start, act):
    job = start("signal.signal(signal.SIGTERM, lambda number, frame: time.sleep(600))", act)
    if act != SLEEP:
        filled(job.stdout)
    job.send_signal(signal.SIGTERM)
    line = next(line for line in job.stderr if not line.startswith("INFO "))
    assert line == f"stopped by SIGTERM: {KEPT}\n"
    assert job.poll() is None
    job.send_signal(signal.SIGTERM)
    assert said(job) == ([], 128 + signal.SIGTERM)


REFUSALS = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "this user may not; change the permissions, or choose another place",
}


@pytest.mark.parametrize("number", REFUSALS)
def test_a_disk_that_takes_nothing_is_one_line(start, number):
    job = start("pass", f"raise OSError({number}, os.strerror({number}), '/data/x')")
    again = "and run the same command again, it goes on from what is finished"
    told = f"error: [Errno {number}] {os.strerror(number)}: '/data/x': {REFUSALS[number]} {again}"
    assert said(job) == ([told], 1)


def test_a_ray_that_is_lost_is_one_line(start):
    act = "from ray.exceptions import LocalRayletDiedError as lost; raise lost()"
    assert said(start("pass", act)) == (
        [f"error: Ray came to an end (The task's local raylet died. Check raylet.out for more information.): {KEPT}"],
        1,
    )


def test_a_fault_of_a_task_is_still_shown_whole(start):
    act = "from ray.exceptions import RayTaskError as fault; raise fault('work', 'trace', RuntimeError('our own'))"
    lines, status = said(start("pass", act))
    assert (lines[0], status) == ("Traceback (most recent call last):", 1)


def test_a_fault_of_ours_is_still_shown_whole(start):
    lines, status = said(start("pass", "raise RuntimeError('our own')"))
    assert (lines[0], lines[-1], status) == ("Traceback (most recent call last):", "RuntimeError: our own", 1)
