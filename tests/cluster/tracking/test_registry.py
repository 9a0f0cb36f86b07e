"""Exported models in MLflow's registry: once each, whenever the server has them."""

import shutil

import pytest

from cluster.tracking.shipper import Shipper, default_tracking_uri
from tests.cluster.store import FILES, registered, ship, versions


def test_a_model_is_registered_once_however_often_it_is_sent(folder, root, client, model):
    registered(folder, model, "once")
    ship(folder, root)
    assert versions(client, "once") == [(1, FILES, ["champion"])]
    state = folder / "train.mlflow.json"
    registered(folder, model, "once")  # as a run that was killed before its manifest does
    for damage in (lambda: None, state.unlink, lambda: state.write_text("{torn")):
        damage()
        ship(folder, root)
    assert versions(client, "once") == [(1, FILES, ["champion"])]
    (model / "model.json").write_text('{"format": 1, "other": 2}')
    registered(folder, model, "once")
    ship(folder, root)
    assert [(number, aliases) for number, _, aliases in versions(client, "once")] == [(1, []), (2, ["champion"])]


@pytest.mark.parametrize("call", ["create_registered_model", "create_model_version", "set_registered_model_alias"])
def test_an_outage_in_the_middle_of_registering_makes_no_second_version(folder, root, client, model, monkeypatch, call):
    """The server does what it is asked, its answer gets lost, and then it is away for the rest of the round."""
    import mlflow

    registered(folder, model, call)
    real, away = getattr(mlflow.MlflowClient, call), []

    def lost(self, *arguments, **named):
        real(self, *arguments, **named)
        away.append(True)
        raise ConnectionError("the answer got lost")

    def get_run(self, run_id, real=mlflow.MlflowClient.get_run):
        if away:
            raise ConnectionError("away")
        return real(self, run_id)

    shipper = Shipper(folder, default_tracking_uri(root), "tests")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, call, lost)
        patch.setattr(mlflow.MlflowClient, "get_run", get_run)
        assert not shipper.ship_once()
        assert shipper.unsent()["train"] >= 2, "the event to register and what follows"
    assert shipper.ship_once()
    assert shipper.unsent() == {}
    assert versions(client, call) == [(1, FILES, ["champion"])]


def test_what_is_not_uploaded_yet_is_not_registered_yet(folder, root, client, model, monkeypatch):
    registered(folder, model, "later", alias=None)

    def fail(*arguments, **named):
        raise OSError("upload broke")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_artifacts", fail)
        assert ship(folder, root).unsent() == {"train": 2}
        assert ship(folder, root).unsent() == {"train": 2}
    assert versions(client, "later") == []
    assert ship(folder, root).unsent() == {}
    assert versions(client, "later") == [(1, FILES, [])]


def test_what_never_arrives_is_not_registered(folder, root, client, model, caplog):
    journal = registered(folder, model, "never")
    shutil.rmtree(model)
    assert ship(folder, root).unsent() == {}
    assert versions(client, "never") == []
    assert f"register {journal.sequence - 1} is left out" in caplog.text
