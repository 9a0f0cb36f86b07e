#!/usr/bin/env bash
# MLflow 3.17.2: of two values logged for one step within one millisecond, the "latest" is the larger, not the last.
#
# Version:    mlflow 3.17.2, SQLite, CPython 3.11, Linux x86-64.
# Input:      log_metric(run, "loss", 0.9) and then log_metric(run, "loss", 0.2), same step, same timestamp; and log_batch
#             of both in this order.
# Expected:   0.2, which was logged last, as the run's value.
# Seen:       run.data.metrics["loss"] is 0.9 both times. The history holds both.
# Why:        the store keeps the greatest of (step, timestamp, value) as the latest.
# It matters: a value that is corrected at once, or two quick logs of one step, show the wrong one in tables and in
#             search_runs. With a loss it is always the worse one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow==3.17.2
cd "$folder"
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" - <<'PYTHON' 2>"$folder/log" || { cat "$folder/log"; exit 1; }
import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

client = MlflowClient("sqlite:///runs.db")
experiment = client.create_experiment("figures")
one, batch = (client.create_run(experiment).info.run_id for _ in range(2))
for value in (0.9, 0.2):
    client.log_metric(one, "loss", value, timestamp=1000, step=7)
client.log_batch(batch, metrics=[Metric("loss", value, 1000, 7) for value in (0.9, 0.2)])
for name, run in (("one by one", one), ("log_batch", batch)):
    latest = client.get_run(run).data.metrics["loss"]
    history = sorted(each.value for each in client.get_metric_history(run, "loss"))
    print(f"mlflow {mlflow.__version__}, {name}: latest {latest}, history {history}")
    if latest != 0.9 or history != [0.2, 0.9]:
        raise SystemExit("changed: expected 0.9 as the latest and both in the history")
PYTHON
