"""A browser opens on a page when its server answers, where there is a screen, and never after the server has ended."""

import os
import socket
import sys

import pytest

from cluster.tracking import browse


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A file that the user's browser, as BROWSER names it, writes the page into."""
    told, program = tmp_path / "page", tmp_path / "browser"
    program.write_text(f"#!/bin/sh\necho $1 > {told}.new && mv {told}.new {told}\n")
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    monkeypatch.setenv("DISPLAY", ":0")
    return told


def started(monkeypatch):
    """What `later` starts."""
    found, real = [], browse.subprocess.Popen
    monkeypatch.setattr(browse.subprocess, "Popen", lambda *given, **keys: found.append(real(*given, **keys)))
    return found


def test_it_opens_when_the_server_answers(opened, monkeypatch):
    processes = started(monkeypatch)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens yet
        page = f"http://127.0.0.1:{taken.getsockname()[1]}/#/runs/1"
        browse.later(page)
        with pytest.raises(browse.subprocess.TimeoutExpired):
            processes[0].wait(1)
        assert not opened.exists()
        taken.listen()
        assert processes[0].wait(300) == 0
    assert opened.read_text() == f"{page}\n"


def test_it_ends_with_a_server_that_never_answers(opened, monkeypatch):
    parents = iter([10, 10, 10, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        browse.when_it_answers(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert not opened.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="others always have a screen")
def test_without_a_screen_nothing_is_started(opened, monkeypatch):
    processes = started(monkeypatch)
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    browse.later("http://127.0.0.1:1")
    assert processes == []
