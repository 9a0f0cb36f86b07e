"""Models by the names that MLflow's registry gives them."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.engine import run
from cluster.engine.refused import RefusedError
from cluster.serving import registry
from jobs._config import load
from jobs.evaluate import evaluate
from tests.cluster.store import FILES, registered, ship
from tests.fss.segmenter.test_segmenter import write


@pytest.fixture
def uri(root, monkeypatch):
    """Where the runs of these tests are registered, as a user says it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")


def test_a_registered_model_is_found_by_version_and_alias(uri, folder, root, model, tmp_path):
    registered(folder, model, "known")
    ship(folder, root)
    for number, name in enumerate(("models:/known/1", "models:/known@champion")):
        found = registry.folder(name, tmp_path / str(number))
        assert {path.name for path in found.iterdir()} == FILES
        assert tmp_path in found.parents
    assert registry.folder(str(model), tmp_path) == model


def test_mlflow_itself_loads_a_registered_model(uri, folder, root, tmp_path):
    import mlflow

    write(tmp_path / "model")
    registered(folder, tmp_path / "model", "whole")
    ship(folder, root)
    loaded = mlflow.pyfunc.load_model("models:/whole@champion")
    assert loaded.predict(loaded.input_example)[0].keys() == {"mask"}


def test_a_version_is_downloaded_once_and_evaluated_from_below_root(uri, folder, root, model, tmp_path, monkeypatch):
    registered(folder, model, "measured")
    ship(folder, root)
    seen = []

    class Seen:
        def __init__(self, config, stages):
            seen.append(Path(config.model.path))

    monkeypatch.setattr(run, "Run", Seen)
    for name in ("models:/measured/1", "models:/measured@champion"):
        with pytest.raises(TypeError):
            evaluate(load(["experiment=tiny", f"model={name}", f"root={tmp_path}", "tracking.enabled=false"]))
        monkeypatch.setattr(registry, "_download", lambda *_: pytest.fail("it is there"))
    assert seen[0] == seen[1]
    assert seen[0].parent == tmp_path / "registered"
    assert {path.name for path in seen[0].iterdir()} == FILES
    assert list(seen[0].parent.iterdir()) == [seen[0]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("models:/known", "expected models:/NAME/VERSION or models:/NAME@ALIAS, got models:/known"),
        ("models:/nobody/1", "MLflow at .* has no such model .*set MLFLOW_TRACKING_URI to where it was registered"),
        ("models:/nobody@best", "MLflow at .* has no such model"),
    ],
)
def test_what_is_not_registered_is_said(uri, client, tmp_path, name, told):
    with pytest.raises(RefusedError, match=told):
        registry.folder(name, tmp_path)


def test_a_registry_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=r"models:/m/1: expected MLflow's .*/runs/mlflow\.db, there is no such file"):
        registry.folder("models:/m/1", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_model_whose_files_mlflow_collected_is_said(uri, folder, root, client, model, tmp_path, how):
    """As after `mlflow gc`: the version is READY, its files are not there, or its folder is empty."""
    registered(folder, model, how)
    ship(folder, root)
    version = client.get_model_version(how, "1")
    files = Path(urlsplit(version.source).path)
    shutil.rmtree(files)
    if how == "empty":
        files.mkdir()
    assert version.status == "READY"
    with pytest.raises(ValueError, match=rf"models:/{how}/1: MLflow at .* says that it is READY and does not give its"):
        registry.folder(f"models:/{how}/1", tmp_path)
