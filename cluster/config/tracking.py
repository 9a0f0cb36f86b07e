"""Keys of MLflow."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import key


@dataclass
class TrackingConfig:
    """MLflow. Metrics are journaled first, so an unreachable server neither stops nor loses anything."""

    enabled: bool = True
    """Whether metrics are sent there."""
    uri: str | None = key(None, when={"enabled": True})
    """Tracking server; none = SQLite file <root>/mlflow.db."""
    experiment: str = key("few-shot segmentation", when={"enabled": True})
    """MLflow's experiment that runs belong to."""
