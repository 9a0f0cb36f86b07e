"""The pages of the pipeline that ran last and of all runs beside it, for whoever opens MLflow's pages of a folder."""

from __future__ import annotations

from pathlib import Path

from cluster.tracking.shipper import default_tracking_uri, run_page
from cluster.tracking.view import runs_page
from fss import seals


def pages(root: Path | str, server: str) -> tuple[str, str] | None:
    """The last pipeline's page on `server`, an address without a slash at its end, and that of its experiment's runs.

    None if MLflow has no such run.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if not (Path(root) / "mlflow.db").is_file():  # MLflow would make an empty one
        return None
    client = MlflowClient(default_tracking_uri(root))
    sent = Path(root).glob("*/tracking/pipeline-*.mlflow.json")
    for path in sorted(sent, key=lambda one: one.stat().st_mtime, reverse=True):
        run_id = (seals.unsealed(path.read_bytes()) or {}).get("run_id")
        try:
            run = client.get_run(run_id) if run_id else None
        except MlflowException:  # it went to another server, or was removed
            continue
        if run is not None and run.info.lifecycle_stage == "active":
            of = run.info.experiment_id
            return run_page(server, of, run.info.run_id), runs_page(server, of)
    return None
