"""How source `saliency` is configured: the backbone's own maps or a folder of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.engine.files import listing
from cluster.label.sources.source import Source
from fss.labelling.sources import Labeller
from fss.labelling.sources.saliency import MapReader, SaliencyLabeller

if TYPE_CHECKING:
    from cluster.engine.run import Run


def _labeller(run: Run) -> Labeller:
    source = run.config.source
    return SaliencyLabeller() if source.maps is None else MapReader(_folder(source.maps), source.maps_kind)


def _folder(maps: str) -> Path:
    folder = Path(maps).resolve()
    if not folder.is_dir():
        raise ValueError(f"expected a folder of maps that all workers see at source.maps={folder}, there is none")
    return folder


def _settings(run: Run) -> dict[str, Any]:
    source = run.config.source
    chosen: dict[str, Any] = {"source": "saliency", "levels": list(source.levels)}
    if source.maps is None:
        return chosen
    return chosen | {"maps_kind": source.maps_kind, "maps": listing(_folder(source.maps), "*.png")}


SOURCE = Source(_labeller, _settings)
