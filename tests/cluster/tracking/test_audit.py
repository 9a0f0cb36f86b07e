"""What the server holds is compared with the journal, whatever the sender remembers having sent."""

import sqlite3

import pytest

from cluster.tracking.audit import gaps
from cluster.tracking.journal import Journal
from jobs._config import load
from jobs.sync import send
from tests.cluster.store import ship


@pytest.fixture
def journal(folder):
    with Journal(folder, "train") as journal:
        journal.params({"lr": 0.1, "seed": 1})
        for step in range(5):
            journal.metrics({"loss": step / 4, "odd": 1 / 3}, step)
    return journal


@pytest.fixture
def config(folder, root, monkeypatch):
    place = folder.parent.parent
    return load([f"root={place}", "name=demo", f"tracking.uri=sqlite:///{root}/mlflow.db", "tracking.experiment=audit"])


def values(client, run_id, key):
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def test_nothing_is_sent_again_that_is_there(journal, config, root, folder, client, capsys):
    run_id = ship(folder, root, "audit").run_ids()["train"]
    lengths = [len(values(client, run_id, key)) for key in ("loss", "odd")]
    send(config)
    assert [len(values(client, run_id, key)) for key in ("loss", "odd")] == lengths == [5, 5]
    assert capsys.readouterr().out == f"sync: everything in {folder} is in MLflow\n"


def test_what_the_server_lost_is_sent_again_and_told(journal, config, root, folder, client, capsys):
    run_id = ship(folder, root, "audit").run_ids()["train"]
    with sqlite3.connect(root / "mlflow.db") as store:
        store.execute("DELETE FROM metrics WHERE run_uuid = ? AND (step = 2 OR key = 'odd')", (run_id,))
        store.execute("DELETE FROM params WHERE run_uuid = ? AND key = 'seed'", (run_id,))
    assert len(values(client, run_id, "loss")) == 4
    send(config)
    assert values(client, run_id, "loss") == [(step, step / 4) for step in range(5)]
    assert len(values(client, run_id, "odd")) == 5
    assert client.get_run(run_id).data.params == {"lr": "0.1", "seed": "1"}
    told = capsys.readouterr().out
    assert "train: 7 values were not in MLflow although they had been sent; sent again" in told
    assert told.endswith(f"sync: everything in {folder} is in MLflow\n")


def test_a_damaged_journal_is_named_and_the_rest_is_sent(journal, config, folder, root, client):
    path = folder / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": 3', b'"step": 4', 1))
    assert gaps(path) == [6]
    with pytest.raises(ValueError, match=r"these journals are damaged: .*train.jsonl: events \[6\]"):
        send(config)
    run_id = ship(folder, root, "audit").run_ids()["train"]
    assert [step for step, _ in values(client, run_id, "loss")] == [0, 1, 2, 4]
