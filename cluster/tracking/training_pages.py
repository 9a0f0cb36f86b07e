"""MLflow's application, whose pages begin with the training of models and with the columns that matter.

MLflow 3.17 keeps in the browser which side a user chose, begins with language models, looks at no tag of an experiment,
and fills its first page with a tour and an assistant: from there a training run is three clicks away, behind a page of
zero traces, and then a table of names and dates. So its page answers for users who have not chosen yet. MLflow starts
this by `--app-name`, once the folder `plugin` is on Python's path.
"""

from __future__ import annotations

import json

from flask import Response, request
from mlflow.server import app as _pages
from mlflow.server.fastapi_app import app

from cluster.tracking.view import VIEW

__all__ = ["app", "begin_with_training"]

#: What MLflow's pages keep in the browser, by name and as they write it.
_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.home.getting-started.collapsed_v1": "true",
}
#: The same of the table of runs, which has a name of its own for each experiment, known or yet to come.
_TABLE = r"^MLflowLocalStorage-1\.1-ExperimentPage-.*-ReactComponentState$"
_SCRIPT = f"""<script>
const kept = Storage.prototype.getItem, choices = {json.dumps(_CHOICES)};
const first = name => choices[name] ?? (/{_TABLE}/.test(name) ? {json.dumps(json.dumps(VIEW))} : null);
Storage.prototype.getItem = function (name) {{ return kept.call(this, name) ?? first(name); }};
</script>"""


@_pages.after_request
def begin_with_training(response: Response) -> Response:
    """Choose before MLflow's own scripts read the choices."""
    if request.path == "/" and response.mimetype == "text/html":
        response.direct_passthrough = False  # it is sent as a file otherwise
        response.set_data(response.get_data().replace(b"<head>", b"<head>" + _SCRIPT.encode(), 1))
    return response
