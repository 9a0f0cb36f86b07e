"""pretrain: the backbone learns from the corpus itself, without labels (backbone.weights=pretrain)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.run import Run
from cluster.stage import File, Stage


def _settings(run: Run) -> dict[str, Any]:
    return {}


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    return [], {}


STAGE = Stage("pretrain", lambda run: ("shard",), _settings, _work)
