"""A command that something outside ends: one line, silence, its status, and no process left."""

import shutil
import subprocess
import sys

import psutil
import pytest

from cluster.engine.session import ROOT

#: A command with a child that looks like a daemon of Ray's node 17, and one that does not.
COMMAND = """
import subprocess, sys, time
from cluster.engine.ending import announce, end, watched
daemon, other = (
    subprocess.Popen(["{folder}/" + name, "-c", "read wait", "--node_id=17"], stdin=subprocess.PIPE)
    for name in ("raylet", "worker")
)
with watched("{node}"):
    print(daemon.pid, other.pid, flush=True)
    {act}
"""
TOLD = "error: Ray's raylet died, mostly of too little memory: what is finished is kept; the same command goes on from"


@pytest.fixture
def start(tmp_path):
    """A function (what it does) -> the command and its two children; nothing of them outlives the test."""
    for name in ("raylet", "worker"):
        shutil.copy(shutil.which("bash"), tmp_path / name)
    begun = []

    def begin(act, node=17):
        source = COMMAND.format(folder=tmp_path, act=act, node=node)
        command = subprocess.Popen(
            [sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        children = [psutil.Process(int(number)) for number in command.stdout.readline().split()]
        begun.append((command, children))
        return command, children

    yield begin
    for command, children in begun:
        for process in (command, *children):
            if psutil.pid_exists(process.pid):
                process.kill()
        command.communicate()


def test_a_daemon_that_dies_ends_the_command_and_its_children(start):
    command, (daemon, other) = start("time.sleep(600)")
    daemon.kill()
    told = command.communicate()
    assert (command.returncode, told[0]) == (1, "")
    assert told[1].startswith(TOLD)
    assert told[1].count("\n") == 1
    other.wait(300)
    assert not other.is_running()


def test_daemons_that_live_change_nothing(start):
    command, _ = start("time.sleep(1)")
    assert command.wait() == 0


def test_a_daemon_of_another_node_changes_nothing(start):
    command, (daemon, _) = start("time.sleep(2)", node=18)
    daemon.kill()
    assert command.wait() == 0


def test_who_comes_first_says_why_and_the_rest_is_silence(start):
    command, children = start(
        "print(announce('stopped by me'), announce('and by me'), flush=True); sys.stderr.write('noise'); end(143)"
    )
    assert command.communicate() == ("", "stopped by me\n")
    assert command.returncode == 143
    assert psutil.wait_procs(children, timeout=300)[1] == []


def test_the_line_is_the_last_one_while_others_print(tmp_path):
    """Of a thread that prints all the time, what comes after the line is lost, and the line is whole."""
    code = (
        "import os, threading; from cluster.engine.ending import announce\n"
        "def chatter():\n"
        "    while True: os.write(1, b'work goes on\\n')\n"
        "threading.Thread(target=chatter, daemon=True).start()\n"
        "announce('stopped by me'); [os.write(1, b'still') for _ in range(99)]; os._exit(0)"
    )
    for _ in range(3):
        with (tmp_path / "told").open("w") as told:
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=told, stderr=told, check=True)
        assert (tmp_path / "told").read_text().splitlines()[-1] == "stopped by me"
