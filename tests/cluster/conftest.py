"""What tests of the tracking share: a store of their own, and what is sent to it."""

import os

import pytest

from cluster.tracking.shipper import default_tracking_uri, tracking_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One store for the module (making the tables takes seconds), away from the user's settings."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
            patch.delenv(key)
        patch.setenv("HOME", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(folder)
        yield folder


@pytest.fixture
def client(root):
    import mlflow

    return mlflow.MlflowClient(default_tracking_uri(root))


@pytest.fixture
def folder(tmp_path):
    return tracking_folder(tmp_path, "demo")


@pytest.fixture
def model(tmp_path):
    """A folder that looks like an exported model."""
    (tmp_path / "export/model").mkdir(parents=True)
    (tmp_path / "export/model/model.json").write_text('{"format": 1}')
    (tmp_path / "export/model/model.safetensors").write_bytes(b"weights")
    return tmp_path / "export/model"
