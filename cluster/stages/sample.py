"""sample: a few embeddings of every image of some corpus shards, for k-means. Dense features are never stored."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster import backbone
from cluster.backbone import BackboneSpec
from cluster.run import Run
from cluster.stage import File, Manifest, Output, Stage, Unit, map_units, read_file
from fss import images, pseudo, rng, shards
from fss.backbones import Features


@dataclass(frozen=True)
class SampleShard:
    """Embeds one corpus shard and keeps the rows that k-means will see."""

    corpus: Path
    spec: BackboneSpec
    recipe: pseudo.Recipe
    seed: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        rows = []
        for key, _, features in embedded(self.corpus, unit.payload, self.spec):
            grid = pseudo.tokens(features, self.recipe.levels)
            rows.append(pseudo.embeddings(grid, self.recipe, rng.numpy_rng(self.seed, "sample", key)))
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(rows) if rows else np.zeros((0, 1), np.float32), allow_pickle=False)
        name = f"{unit.name}.npy"
        points = sum(len(r) for r in rows)
        return Output({name: buffer.getvalue()}, {name: points}, {"images": len(rows), "points": points})


def embedded(folder: Path, file: File, spec: BackboneSpec) -> Iterator[tuple[str, dict[str, bytes], Features]]:
    """(key, members, features) of every image of a corpus shard."""
    samples = list(shards.unpack(read_file(folder, file)))
    extractor = spec.load()
    for start in range(0, len(samples), extractor.batch):
        block = samples[start : start + extractor.batch]
        pictures = [images.decode(members["jpg"]) for _, members in block]
        for (key, members), features in zip(block, extractor.stream(pictures), strict=True):
            yield key, members, features


def recipe(run: Run) -> pseudo.Recipe:
    """The source's settings as the library wants them."""
    source = run.config.source
    return pseudo.Recipe(source.segments, tuple(source.granularities), tuple(source.levels), source.points_per_image)


def recipe_settings(run: Run) -> dict[str, Any]:
    """What of the source shapes embeddings."""
    source = run.config.source
    chosen: dict[str, Any] = {"segments": source.segments, "levels": list(source.levels)}
    if source.segments == "none":
        return chosen | {"points_per_image": source.points_per_image}
    return chosen | {"granularities": list(source.granularities)}


def units(corpus: Manifest) -> list[Unit]:
    """One unit for every corpus shard."""
    return [Unit(Path(file.path).stem.replace("corpus", "part"), file) for file in corpus.named(".tar")]


def _settings(run: Run) -> dict[str, Any]:
    settings = {"seed": run.config.seed, "shards": run.config.source.shards, "backbone": backbone.settings(run)}
    return settings | recipe_settings(run)


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    corpus = run.manifest("shard")
    chosen = units(corpus)[: run.config.source.shards]
    function = SampleShard(corpus.folder, backbone.spec(run), recipe(run), run.config.seed)
    return map_units(run, folder, "sample", function, chosen, total=len(chosen))


STAGE = Stage("sample", lambda run: ("shard", *backbone.needed(run)), _settings, _work)
