"""How source `saliency` is configured: the backbone's own maps or a folder of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.engine.files import listing
from cluster.engine.settings import complaints
from cluster.label.sources.source import LabellerInputs, SourceStage
from fss.imaging import images
from fss.labelling.sources import Labeller
from fss.labelling.sources.saliency import MapReader, SaliencyLabeller


@dataclass(frozen=True)
class SaliencySettings:
    """What shapes the maps: the embeddings they are cut from, or the user's, by their names and sizes."""

    levels: tuple[str, ...]
    maps: str | None = None
    maps_kind: str | None = None


@dataclass(frozen=True)
class SaliencyMeans:
    """Where the user's maps are."""

    maps: Path | None


def settings(config: Config) -> SaliencySettings:
    """What of the keys shapes label maps."""
    levels, maps = tuple(config.source.levels), means(config).maps
    if maps is None:
        return SaliencySettings(levels)
    return SaliencySettings(levels, listing(maps, images.EXTENSIONS), config.source.maps_kind)


def means(config: Config) -> SaliencyMeans:
    """Where the user's maps are."""
    return SaliencyMeans(None if config.source.maps is None else Path(config.source.maps).resolve())


def labeller(chosen: SaliencySettings, where: SaliencyMeans) -> Labeller:
    """What finds salient pixels."""
    if where.maps is None or chosen.maps is None or chosen.maps_kind is None:
        return SaliencyLabeller()
    return MapReader(where.maps, chosen.maps, chosen.maps_kind)


def check(config: Config) -> list[str]:
    """Whether the user's maps are there."""
    return complaints(lambda: _look(means(config).maps))


def _look(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise ValueError(
            f"source.maps: expected a folder of maps that all workers see, there is no {folder}; set source.maps=FOLDER"
        )


def _labeller(given: LabellerInputs) -> Labeller:
    return labeller(given.settings, given.means)


SOURCE = SourceStage(settings, _labeller, means=means, check=check)
