"""What MLflow's page of all runs shows: by itself names and dates alone, so a view with the columns that matter."""

from __future__ import annotations

import json

_NAME = "runs"
_COLUMNS = (
    *(f"attributes.`{name}`" for name in ("Created", "Duration")),
    *(f"metrics.`result/{name}`" for name in ("miou_1shot", "miou_5shot", "holdout_iou", "images_per_second")),
    *(f"params.`{name}`" for name in ("source.name", "model.name", "backbone.name", "corpus.root")),
)


#: The state of that page, as MLflow keeps it: what it lacks is MLflow's own choice.
VIEW = {"selectedColumns": _COLUMNS}


def experiment_tags() -> dict[str, str]:
    """Of a new experiment: the view, as MLflow's pages keep one that is shared, and that models are trained in it."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{_NAME}": json.dumps(VIEW),
    }


def runs_page(server: str, experiment_id: str) -> str:
    """The page of all runs of an experiment, on a server's address, which ends in no slash."""
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={_NAME}&workflowType=machine_learning"
