"""Whom a server lets in is decided before any work."""

import pytest

from jobs import serve


def load(*arguments):
    return serve.COMMAND.load(["model=models:/m@a", *arguments])


def test_only_this_machine_is_served_without_a_token():
    assert (load().host, load().secret) == ("127.0.0.1", None)
    assert load("host=::1").host == "::1"
    for others in ("host=0.0.0.0", "host=example.org", "address=auto"):
        with pytest.raises(ValueError, match=r"token: expected one where others reach .* got none; set FSS_TOKEN in"):
            load(others)
        assert load(others, "token=0123456789abcdef").secret == "0123456789abcdef"


def test_a_clusters_job_needs_a_token(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ValueError, match="token: expected one where others reach the server, got none"):
        load()


def test_the_environment_may_hold_the_token(monkeypatch):
    monkeypatch.setenv("FSS_TOKEN", "0123456789abcdef")
    assert load("host=0.0.0.0").secret == "0123456789abcdef"


@pytest.mark.parametrize("token", ["short", "with spaces in it, long", "0123456789abcdé0"])
def test_a_token_that_is_guessed_or_cannot_be_sent_is_refused(token):
    with pytest.raises(ValueError, match="token: expected 16 letters, digits or signs, or more, without spaces"):
        load(f"token={token}")
