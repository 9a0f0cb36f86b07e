"""How busy the machine is, in the journal of a pipeline."""

import itertools

from cluster.tracking import machine
from cluster.tracking.journal import Journal, read_events


def test_a_look_has_what_mlflow_shows():
    values = machine.look(machine.monitors())
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(values)
    assert 0 < values["system/system_memory_usage_percentage"] < 100


def test_a_pipelines_journal_is_told_until_it_ends(tmp_path):
    with Journal(tmp_path, "pipeline") as journal, machine.watched(journal, every=0.01):
        for _ in itertools.count():
            if told := [event for event in read_events(journal.path)[0] if event["kind"] == "metrics"]:
                break
    assert all(name.startswith("system/") for event in told for name in event["values"])
    assert "system/system_memory_usage_megabytes" in told[0]["values"]


def test_a_short_run_is_spared(tmp_path):
    with Journal(tmp_path, "pipeline") as journal, machine.watched(journal, every=60):
        pass
    assert not [event for event in read_events(journal.path)[0] if event["kind"] == "metrics"]
