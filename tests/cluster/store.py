"""What tests of the tracking share: sending journals to a store, and what a store has registered."""

from pathlib import Path

from cluster.tracking.journal import Journal
from cluster.tracking.shipper import Shipper, default_tracking_uri

FILES = {"model.json", "model.safetensors"}


def ship(folder, root, experiment="tests"):
    """A fresh shipper each time, as after a restart of the driver."""
    return ship_to(folder, default_tracking_uri(root), experiment)


def ship_to(folder, uri, experiment):
    shipper = Shipper(folder, uri, experiment)
    assert shipper.ship_once()
    return shipper


def versions(client, name):
    """(version, files at its source, aliases) of each version of a registered model, by number."""
    from mlflow.artifacts import download_artifacts

    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    about = [client.get_model_version(name, version.version) for version in found]
    where = client._tracking_client.tracking_uri
    return [
        (int(v.version), {p.name for p in Path(download_artifacts(v.source, tracking_uri=where)).iterdir()}, v.aliases)
        for v in about
    ]


def registered(folder, model, name, alias="champion"):
    """A journal with a model that is to be registered."""
    with Journal(folder, "train") as journal:
        journal.artifact(model, "model")
        journal.register(name, alias, model, "model")
    return journal
