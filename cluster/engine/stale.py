"""What is in a stage's folder, though the code of today might make something else: used with a word, or made again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.engine import origin, publish
from cluster.engine.manifest import Manifest
from cluster.engine.stage import MADE_BY, OTHER, Stage
from cluster.engine.work import StageError
from cluster.storage import bucket, paths

logger = logging.getLogger(__name__)


def doubt(stage: Stage[Any, Any], folder: Path, manifest: Manifest | None, inputs: Mapping[str, Manifest]) -> str:
    """How what is in `folder`, finished if it has a `manifest`, was made if not as it would be now; else nothing."""
    made_by = (publish.read_sealed(folder / MADE_BY) or {}) if manifest is None else manifest.made_by
    if manifest is None and not made_by:
        return ""
    now, before = origin.code(stage.work.__module__), made_by.get(OTHER, made_by.get("code", "unknown"))
    if before != now:
        return f"by other code ({before}, now {now})"
    made_of = {} if manifest is None else manifest.made_of
    changed = [name for name, above in inputs.items() if made_of.get(name, above.content) != above.content]
    return f"of other files of {', '.join(changed)} than there are now" if changed else ""


def refused(
    stage: Stage[Any, Any], folder: Path, manifest: Manifest | None, inputs: Mapping[str, Manifest], policy: str
) -> bool:
    """Whether what is in `folder` is to be made again by `policy`, the key `stale`; if it is doubted, a line says so.

    Raises:
        StageError: if it is doubted and the policy is `error`.
    """
    why = doubt(stage, folder, manifest, inputs)
    if not why:
        return False
    what = f"{stage.name}: {bucket.address(folder)} was {'begun' if manifest is None else 'made'} {why}"
    if policy == "error":
        raise StageError(f"{what}; set stale=remake to make it again, or stale=warn to use it")
    if policy == "warn":
        logger.warning("%s, and is used as it is; set stale=remake to make it again", what)
    return policy == "remake"


def clear(folder: Path) -> None:
    """Empty a stage's folder, whose lock the caller holds."""
    logger.warning("%s is emptied, its stage makes it again", bucket.address(folder))
    paths.empty(folder, publish.LOCK)
