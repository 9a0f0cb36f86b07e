"""The keys of `jobs.ui`."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import key, ranged


@dataclass
class UiConfig:
    """Look at runs in MLflow's pages."""

    root: str = key("runs", path=True)
    """Folder of the runs, whose mlflow.db is shown."""
    host: str = "127.0.0.1"
    """Address that the server listens at; 0.0.0.0 shows the runs to everybody who reaches this machine."""
    port: int = key(5000, ranged("a port from 1 to 65535", lambda value: 0 < value < 65536))
    """Port of the server."""
    open: bool = True
    """Whether a browser opens on the last pipeline's page, where there is a screen and the server is for it alone."""
