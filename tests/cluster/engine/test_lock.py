"""The lock comes before the first byte: a second command changes nothing of the first one's, in journals neither."""

import pytest

from cluster.engine import publish
from cluster.tracking.journal import read_events
from tests.cluster.here import here


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kinds(run, name):
    return [event["kind"] for event in read_events(run.tracking_folder / f"{name}.jsonl")[0]]


def test_the_same_configuration_is_refused_before_it_writes_anything(configure, tmp_path):
    with here(configure(tmp_path)) as first:
        before = everything(tmp_path)
        with pytest.raises(ValueError, match=r"another run is writing .*/pipeline-"), here(configure(tmp_path)):
            pytest.fail("two commands on one folder")
        assert everything(tmp_path) == before
        first.pipeline_journal.tags({"still": "here"})
    events = read_events(first.tracking_folder / f"{first.pipeline_name}.jsonl")[0]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["status"] for event in events if event["kind"] == "end"] == ["FINISHED"]


def test_another_configuration_of_the_name_runs_beside_it_with_a_journal_of_its_own(configure, tmp_path):
    with here(configure(tmp_path)) as first, here(configure(tmp_path, "pair.tasks_per_image=2")) as second:
        assert first.pipeline_name != second.pipeline_name
        assert first.identity("shard") == second.identity("shard")
        folder = first.folder / "shard" / first.identity("shard")[2]
        second.ensure("shard")
        first.ensure("shard")
        (folder / "manifest.json").unlink()
        third = here(second.config)
        with publish.only_writer(folder):  # as if the first one were at work on the stage that both have
            before = everything(tmp_path)
            with pytest.raises(ValueError, match=r"another run is writing .*/shard/"):
                third.ensure("shard")
            assert everything(tmp_path) == before, "not even the stage's journal"
    for run in (first, second):
        assert kinds(run, run.pipeline_name)[-1] == "end"


def test_a_stage_that_another_run_finished_meanwhile_is_not_done_again(configure, tmp_path, monkeypatch):
    first, second = (here(configure(tmp_path)) for _ in range(2))
    real = publish.only_writer

    def late(folder):  # the first run finishes just before the second one gets its lock
        monkeypatch.setattr(publish, "only_writer", real)
        first.ensure("shard")
        return real(folder)

    monkeypatch.setattr(publish, "only_writer", late)
    assert second.ensure("shard") == first.manifest("shard")
    assert second.fresh == []
