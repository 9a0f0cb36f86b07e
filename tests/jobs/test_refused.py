"""A command that was refused is told from one that failed."""

import pytest

from jobs import _refused


@pytest.mark.parametrize("status", [1, 130, 143])
def test_other_endings_keep_their_status_and_ask_nobody(status, monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert _refused.main(status) == status


def test_the_job_that_was_refused_is_stopped(monkeypatch):
    stopped = []
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda: Client(stopped))
    monkeypatch.setattr(_refused, "_GRACE", 0)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "raysubmit_1"}}')
    assert _refused.main(_refused.REFUSED) == _refused.REFUSED
    assert stopped == ["raysubmit_1"]


class Client:
    def __init__(self, stopped):
        self.stop_job = stopped.append
