"""The verdict on a round can be bad: each thing that may be wrong in the end is named."""

from types import SimpleNamespace

from tests.chaos import verdict

QUIET = verdict.Outcome({"label/a": "1", "pair/b": "2"}, {"train": ("FINISHED", [(1, 0.5)], {})})


def test_an_equal_outcome_has_no_difference():
    assert verdict.differing(QUIET, verdict.Outcome(dict(QUIET.files), dict(QUIET.tracked))) == []


def test_another_a_missing_and_a_surplus_file_differ():
    for files in ({**QUIET.files, "label/a": "3"}, {"pair/b": "2"}, {**QUIET.files, "label/0": "1"}):
        (said,) = verdict.differing(QUIET, verdict.Outcome(files, QUIET.tracked))
        assert said.startswith("1 differ (file): label/")


def test_a_run_that_lost_a_loss_or_has_not_ended_differs():
    for tracked in ({}, {"train": ("RUNNING", [(1, 0.5)], {})}, {"train": ("FINISHED", [], {})}):
        (said,) = verdict.differing(QUIET, verdict.Outcome(QUIET.files, tracked))
        assert said.startswith("1 differ (in MLflow): train: ('FINISHED'")


def test_what_is_left_behind_is_named(tmp_path, monkeypatch):
    (tmp_path / "label").mkdir()
    (tmp_path / "label/.part.tmp").touch()
    busy = SimpleNamespace(pid=17, cmdline=lambda: ["ray::Worker.run"])
    monkeypatch.setattr(verdict, "working", lambda _: [busy])
    monkeypatch.setattr(verdict, "_GONE", 0.0)
    assert verdict.left_behind(tmp_path, None) == [
        "half-written: .part.tmp",
        "still at work: 17 ['ray::Worker.run']",
    ]


def test_a_stack_of_the_command_counts_and_one_of_its_workers_does_not():
    assert verdict.stacks("INFO a\nTraceback (most recent call last):\n") == ["a traceback in the driver's log"]
    assert verdict.stacks("error: a\n(Worker pid=7) Traceback (most recent call last):\n") == []
