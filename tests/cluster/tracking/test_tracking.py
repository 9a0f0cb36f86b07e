"""What becomes of a journal in MLflow: in time, late, twice."""

import doctest
import json

import numpy as np
import pytest

from cluster.tracking import events
from cluster.tracking.journal import Journal
from tests.cluster.store import ship


def test_everything_lands_in_the_store(folder, root, client, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.txt").write_text("1")
    with Journal(folder, "pipeline") as parent, Journal(folder, "train", parent="pipeline") as train:
        parent.tags({"mlflow.note.content": "**what**"})
        train.params({"optimizer": {"lr": 0.1}})
        train.metrics({"train/loss": 0.7, "train/norm": float("inf")}, step=1)
        train.metrics({"train/loss": 0.6}, step=2)
        train.image("episode", np.zeros((8, 8, 3)), step=5)
        train.artifact(report, "reports")
        train.artifact(tmp_path / "model")
        train.text("notes/readme.md", "hello")
        train.dataset("tasks", "d" * 64, "/data/tasks", "training")
    run_ids = ship(folder, root).run_ids()
    run = client.get_run(run_ids["train"])
    assert run.info.run_name == "train (demo)"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"optimizer.lr": "0.1"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "curves/loss")] == [
        (1, 0.7), (2, 0.6),
    ]  # fmt: skip
    assert set(run.data.metrics) == {"curves/loss"}
    assert run.data.tags["not_finite.train/norm"] == "inf at step 1"
    assert run.data.tags["mlflow.parentRunId"] == run_ids["pipeline"]
    pipeline = client.get_run(run_ids["pipeline"])
    assert pipeline.info.run_name == run.data.tags["pipeline"] == "demo", "the pipeline's own name, not its journal's"
    assert pipeline.data.tags["mlflow.note.content"] == "**what**"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("tasks", "d" * 36)
    assert dataset.tags[0].value == "training"
    images = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert sorted(path.rpartition(".")[2] for path in images) == ["png", "webp"]
    assert all("episode" in path and "step+5" in path for path in images)
    assert [item.path for item in client.list_artifacts(run.info.run_id, "model")] == ["model/weights.txt"]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"images", "model", "notes", "reports"}
    assert (root / "mlartifacts").is_dir()


def test_shipping_twice_sends_once_even_without_its_memory(folder, root, client):
    with Journal(folder, "train") as journal:
        for step in range(3):
            journal.metrics({"loss": step}, step)
        journal.image("picture", np.zeros((4, 4), np.uint8), step=0)
    first = ship(folder, root, "replay").run_ids()
    state = folder / "train.mlflow.json"
    for damage in (lambda: None, state.unlink, lambda: state.write_text("{torn")):
        damage()
        assert ship(folder, root, "replay").run_ids() == first
    assert len(client.get_metric_history(first["train"], "loss")) == 3
    assert len(client.list_artifacts(first["train"], "images")) == 2
    assert len(client.search_runs([client.get_experiment_by_name("replay").experiment_id])) == 1
    assert json.loads(state.read_text())["acknowledged"] == journal.sequence


def test_an_answer_that_got_lost_costs_no_duplicates(folder, root, client, monkeypatch):
    journal = Journal(folder, "train")
    shipper = ship(folder, root)
    sender = shipper._senders["train"]
    monkeypatch.setattr(sender, "_acknowledge", lambda sequence: (_ for _ in ()).throw(OSError("power cut")))
    journal.metrics({"loss": 1}, 0)
    assert not shipper.ship_once()
    run_ids = ship(folder, root).run_ids()
    assert len(client.get_metric_history(run_ids["train"], "loss")) == 1


def test_a_resumed_run_is_the_same_run_and_running_again(folder, root, client):
    with Journal(folder, "train") as journal:
        journal.params({"lr": 1, "seed": 2})
    run_id = ship(folder, root).run_ids()["train"]
    resumed = Journal(folder, "train")
    resumed.params({"lr": 3, "seed": 2, "extra": 4})
    shipper = ship(folder, root)
    run = client.get_run(run_id)
    assert shipper.run_ids()["train"] == run_id
    assert run.info.status == "RUNNING"
    assert run.data.params == {"lr": "1", "seed": "2", "extra": "4"}
    assert run.data.tags["param_changed.lr"] == "3"
    resumed.end("FAILED")
    assert shipper.ship_once()
    assert client.get_run(run_id).info.status == "FAILED"


def test_more_than_one_batch_holds(folder, root, client):
    with Journal(folder, "big") as journal:
        journal.params({f"p{i}": "é" * 3000 for i in range(130)})
        journal.tags({f"t{i}": i for i in range(130)})
        journal.metrics({f"m{i}": i for i in range(1500)})
    run = client.get_run(ship(folder, root).run_ids()["big"])
    assert (len(run.data.params), len(run.data.metrics)) == (130, 1500)
    assert run.data.tags["t129"] == "129"


def test_one_bad_event_is_left_out_and_the_rest_arrives(folder, root, client, caplog):
    journal = Journal(folder, "train")
    journal.artifact(folder / "never-written.bin")
    journal.image("broken", b"no png", step=1)
    journal.metrics({"after": 1})
    run = client.get_run(ship(folder, root).run_ids()["train"])
    assert run.data.metrics == {"after": 1}
    messages = [record.message for record in caplog.records]
    assert any("never-written.bin is gone" in message for message in messages)
    assert any("is no readable PNG" in message for message in messages)


def test_a_file_that_fails_while_the_server_is_well_holds_up_no_numbers(folder, root, client, monkeypatch):
    journal = Journal(folder, "train")
    journal.text("a.md", "hello")
    journal.metrics({"after": 1})

    def fail(*arguments):
        raise OSError("upload broke")

    with monkeypatch.context() as patch:
        patch.setattr("cluster.tracking.sync.send_file", fail)
        shipper = ship(folder, root)
        assert shipper.unsent() == {"train": 1}
    run_id = shipper.run_ids()["train"]
    assert client.get_run(run_id).data.metrics == {"after": 1}
    later = ship(folder, root)
    assert later.unsent() == {}
    assert [item.path for item in client.list_artifacts(run_id)] == ["a.md"]


def test_a_run_deleted_by_the_user_is_left_alone(folder, root, client, caplog):
    journal = Journal(folder, "train")
    shipper = ship(folder, root)
    client.delete_run(shipper.run_ids()["train"])
    journal.metrics({"x": 1})
    assert shipper.ship_once()
    assert shipper.unsent() == {}
    assert "was deleted in MLflow" in caplog.text
    assert sum("deleted" in record.message for record in caplog.records) == 1


def test_link_to_a_run(folder, root, client):
    Journal(folder, "train").end()
    shipper = ship(folder, root)
    run = client.get_run(shipper.run_ids()["train"])
    path = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert shipper.link("train", "http://h:5000/") == f"http://h:5000/#/{path}?workflowType=machine_learning"
    assert shipper.link("train") is None, "a file has no pages"
    assert shipper.link("other", "http://h:5000") is None


def test_a_run_that_is_taken_up_again_loses_its_error(folder, root, client):
    with pytest.raises(ValueError, match="no photos"), Journal(folder, "pipeline"):
        raise ValueError("no photos")
    run_id = ship(folder, root, "again").run_ids()["pipeline"]
    assert client.get_run(run_id).data.tags["error"] == "ValueError: no photos"
    with Journal(folder, "pipeline") as journal:
        journal.metrics({"loss": 1.0}, step=1)
    ship(folder, root, "again")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags


def test_our_own_tags_are_hidden(folder, root, client):
    with Journal(folder, "train") as journal:
        journal.tags({"seen": "yes"})
    tags = client.get_run(ship(folder, root, "hidden").run_ids()["train"]).data.tags
    assert {name for name in tags if not name.startswith("mlflow.")} == {"seen"}


def test_documented_names_of_metrics():
    assert doctest.testmod(events).failed == 0
