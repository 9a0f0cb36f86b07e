"""Models by the names that MLflow's registry gives them: `models:/NAME/VERSION` and `models:/NAME@ALIAS`."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.engine.refused import RefusedError, refusing
from cluster.storage import bucket, paths
from cluster.tracking.redact import redact
from cluster.tracking.shipper import default_tracking_uri
from fss.segmenter import find
from fss.shards import sha256

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_ADDRESS = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


def folder(model: str, below: Path) -> Path:
    """The folder of the exported model that `model` names: as `fss.segmenter.find`, or as MLflow's registry does.

    One at s3://BUCKET/KEY is found as in a folder, and copied.

    A registered model is downloaded into a folder `below`, once for each version, whole or not at all.
    MLFLOW_TRACKING_URI says where the registry is.

    Raises:
        RefusedError: if there is none, or MLflow has lost its files.
    """
    if bucket.is_address(model):
        return _of_a_bucket(model)
    if not model.startswith("models:"):
        with refusing():
            return find(model)
    address = _ADDRESS.fullmatch(model)
    if address is None:
        raise RefusedError(f"expected models:/NAME/VERSION or models:/NAME@ALIAS, got {model}")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri("runs")
    version = _version(model, address, uri)
    place = below / f"{version.name}-{version.version}-{sha256(f'{uri} {version.source}'.encode())[:8]}"
    if not place.is_dir():
        below.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=below, ignore_cleanup_errors=True) as scratch:
            files = _download(model, version, uri, scratch)
            with contextlib.suppress(OSError):  # another process was first
                files.replace(place)
    return find(place)


def _of_a_bucket(model: str) -> Path:
    """This machine's copy of what `fss.segmenter.find` would find there."""
    base = paths.place(model)
    for pattern in ("model.json", "model/model.json", "*/model/model.json", "*/*/model/model.json"):
        if (last := paths.newest(paths.matching(base, pattern))) is not None:
            return paths.bring(last.parent)
    raise RefusedError(f"expected an exported model (a folder with model.json) at {model}; the train stage writes one")


def _version(model: str, address: re.Match[str], uri: str) -> ModelVersion:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    store = uri.removeprefix("sqlite:///")
    if store != uri and not Path(store).is_file():  # MLflow would make an empty one
        raise RefusedError(f"{model}: expected MLflow's {store}, there is no such file; set MLFLOW_TRACKING_URI")
    client, name = MlflowClient(uri), address["name"]
    try:
        if address["alias"]:
            return client.get_model_version_by_alias(name, address["alias"])
        return client.get_model_version(name, address["version"])
    except MlflowException as error:
        raise RefusedError(
            f"{model}: MLflow at {redact(uri)} has no such model ({redact(str(error))}); set MLFLOW_TRACKING_URI to "
            "where it was registered, or name the run's folder"
        ) from error


def _download(model: str, version: ModelVersion, uri: str, scratch: str) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        place = Path(download_artifacts(artifact_uri=version.source, tracking_uri=uri, dst_path=scratch))
        why = "" if any(place.rglob("*")) else "an empty folder"
    except (MlflowException, OSError) as error:
        why = redact(" ".join(str(error).split()))
    if why:
        raise RefusedError(
            f"{model}: MLflow at {redact(uri)} says that it is {version.status} and does not give its files ({why}); "
            "`mlflow gc` removes those of deleted runs: train or register it again, or name the run's folder"
        )
    return place
