"""The closing words of a pipeline name commands that work as they stand, in a shell where nothing is activated."""

import pytest

from cluster.report import summary
from cluster.tracking.shipper import default_tracking_uri


@pytest.mark.parametrize(
    ("root", "uri", "told"),
    [
        ("runs", None, "make ui   then open http://127.0.0.1:5000"),
        ("my runs", None, "make ui RUNS='my runs'   then open http://127.0.0.1:5000"),
        (
            "runs",
            "sqlite:///other.db",
            "-m mlflow server --backend-store-uri sqlite:///other.db   then open http://127",
        ),
        ("runs", "http://server:5000", "http://server:5000"),
    ],
)
def test_how_to_open_the_tracking_page(root, uri, told):
    assert told in summary._ui(root, uri or default_tracking_uri(root))
