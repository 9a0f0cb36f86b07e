"""MLflow's application, whose pages begin with the training of models instead of with language models.

MLflow 3.17 keeps in the browser which side a user chose, begins with language models, looks at no tag of an experiment,
and fills its first page with a tour and an assistant: from there a training run is three clicks away, behind a page of
zero traces. So its page chooses for users who have not chosen yet. MLflow starts this by `--app-name`, once the folder
`plugin` is on Python's path.
"""

from __future__ import annotations

import json

from flask import Response, request
from mlflow.server import app as _pages
from mlflow.server.fastapi_app import app

__all__ = ["app", "begin_with_training"]

#: What MLflow's pages keep in the browser, as they write it.
_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.home.getting-started.collapsed_v1": "true",
}
_SCRIPT = f"""<script>
for (const [name, choice] of Object.entries({json.dumps(_CHOICES)}))
  if (localStorage.getItem(name) === null) localStorage.setItem(name, choice);
</script>"""


@_pages.after_request
def begin_with_training(response: Response) -> Response:
    """Choose before MLflow's own scripts read the choices."""
    if request.path == "/" and response.mimetype == "text/html":
        response.direct_passthrough = False  # it is sent as a file otherwise
        response.set_data(response.get_data().replace(b"<head>", b"<head>" + _SCRIPT.encode(), 1))
    return response
