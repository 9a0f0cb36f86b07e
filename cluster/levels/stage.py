"""levels: which blocks of the backbone its levels are taken after, by the consistency of cells of the corpus's photos.

Two steps, each spread over the workers: every level alone, then every one below the best beside it. The photos are the
first ones of the corpus: shards hold them in an order drawn at random. So what it costs does not grow with the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cluster.config import Config
from cluster.engine.stage import File, Output, Stage, StageError, Unit, Work, read_file, write_file
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings, BackboneSpec
from fss import shards
from fss.evaluation import levels
from fss.imaging import images

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreLevels:
    """Looks at the photos through a network with three levels."""

    corpus: Path
    files: tuple[File, ...]
    spec: BackboneSpec
    beside: bool
    """Whether low and mid are looked at side by side with high, not all three alone."""

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` are the numbers of the levels; a JSON file of their scores."""
        extractor = dataclasses.replace(self.spec, levels=unit.payload).load()
        pictures = self._pictures(levels.photos_for(extractor.grid))
        asked = [("low", "high"), ("mid", "high")] if self.beside else [("low",), ("mid",), ("high",)]
        found = levels.scores(extractor, pictures, asked)
        data = json.dumps(dict(zip(unit.payload, found, strict=False))).encode()
        return Output({f"scores/{unit.name}.json": data}, {}, {"images": len(pictures)})

    def _pictures(self, most: int) -> dict[str, Image.Image]:
        found: dict[str, Image.Image] = {}
        for file in self.files:
            for name, members in shards.unpack(read_file(self.corpus, file)):
                found[name] = images.decode(members["jpg"])
                if len(found) == most:
                    return found
        return found


@dataclass(frozen=True)
class LevelsSettings:
    """What shapes the choice."""

    levels_by: str
    backbone: BackboneSettings


@dataclass(frozen=True)
class LevelsMeans:
    """Where the backbone's weights are."""

    weights: str | None


LevelsWork = Work[LevelsSettings, LevelsMeans]


def _work(work: LevelsWork) -> tuple[Sequence[File], Mapping[str, int]]:
    corpus = work.inputs["shard"]
    if corpus.counts["accepted"] < 2:
        raise StageError(
            f"levels: expected two images or more, the corpus has {corpus.counts['accepted']}; give more, or leave out "
            "backbone.levels_by"
        )
    spec = backbone.spec(work.settings.backbone, work.means.weights, {})
    depth = spec.build().net.depth
    alone, files, looked_at = _scores(work, spec, levels.alone(depth), False)
    high = levels.chosen({level: score for level, score in alone.items() if level >= levels.FIRST})
    beside, more, _ = _scores(work, spec, levels.beside(high), True)
    mid = levels.chosen({level: score for level, score in beside.items() if level > 1})
    three = levels.three(mid, high)
    logger.info("levels: low, mid and high after %s of %d, by %s", three, depth, work.settings.levels_by)
    with work.journal() as journal:
        for level, score in alone.items():
            journal.metrics({"levels/consistency": score}, step=level)
    told = {"levels": three, "alone": alone, "beside": beside}
    kept = write_file(work.folder, backbone.LEVELS, json.dumps(told, indent=2).encode())
    return [kept, *files, *more], {"images": looked_at, "levels": len(alone)}


def _scores(
    work: LevelsWork, spec: BackboneSpec, every: Sequence[tuple[int, ...]], beside: bool
) -> tuple[dict[int, float], list[File], int]:
    """The score of each level of these networks, the files that hold them, and how many images were looked at."""
    corpus, step = work.inputs["shard"], "beside" if beside else "alone"
    function = ScoreLevels(corpus.folder, tuple(corpus.named(".tar")), spec, beside)
    units = [Unit("-".join([step, *(f"{level:03d}" for level in numbers)]), numbers) for numbers in every]
    files, counts = work.map(f"levels, {step}", function, units, parts="networks")
    found = [json.loads(read_file(work.folder, file)) for file in files]
    scores = {int(level): float(score) for one in found for level, score in one.items()}
    return dict(sorted(scores.items())), files, counts["images"] // len(units)


def _settings(config: Config) -> LevelsSettings:
    return LevelsSettings(config.backbone.levels_by or "", backbone.settings(config))


STAGE = Stage(
    "levels",
    lambda config: ("shard",),
    _settings,
    _work,
    means=lambda config: LevelsMeans(backbone.place(config)),
    check=backbone.problems,
)
