"""MLflow's application, whose pages begin with the training of models instead of with language models.

MLflow 3.17 keeps the side that a user chose in the browser, begins with language models, and looks at no tag of an
experiment: from its home page a training run is three clicks away, behind a page of zero traces. So its page chooses
for users who have not chosen yet. MLflow starts this by `--app-name`, once the folder `plugin` is on Python's path.
"""

from __future__ import annotations

from flask import Response, request
from mlflow.server import app as _pages
from mlflow.server.fastapi_app import app

__all__ = ["app", "begin_with_training"]

_CHOICE = b"""<script>
if (localStorage.getItem("mlflow.workflowType_v1") === null)
  localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
</script>"""


@_pages.after_request
def begin_with_training(response: Response) -> Response:
    """Choose before MLflow's own scripts read the choice."""
    if request.path == "/" and response.mimetype == "text/html":
        response.direct_passthrough = False  # it is sent as a file otherwise
        response.set_data(response.get_data().replace(b"<head>", b"<head>" + _CHOICE, 1))
    return response
