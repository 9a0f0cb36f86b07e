"""One pass over a corpus shard: decode -> network input -> backbone -> embeddings, decoding beside the network.

The number of threads shapes nothing: each takes whole calls of the network (`fss.backbones.extractor`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.engine.stage import File, Manifest, Unit, read_file
from cluster.features.backbone import BackboneSpec
from fss import shards, threads
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.sources import Block, Photo
from fss.prefetch import ahead, batches


def units(corpus: Manifest) -> list[Unit]:
    """One unit for every corpus shard, whose payload is its `File`."""
    return [Unit(Path(file.path).stem.replace("corpus", "part"), file) for file in corpus.named(".tar")]


@dataclass(frozen=True)
class FeaturePass:
    """Embeds the images of corpus shards in so many `threads`, which shape nothing."""

    corpus: Path
    spec: BackboneSpec
    recipe: pseudo.EmbeddingOptions
    threads: int = 1
    features: bool = False
    """Whether blocks bring the backbone's levels beside the embeddings."""

    def blocks(self, file: File, only: Collection[str] | None = None) -> Iterator[Block]:
        """The images of a shard, embedded block by block: decoded ahead of the network, on a CPU several at a time.

        Of some of them, if `only` their keys are given.
        """
        every = shards.unpack(read_file(self.corpus, file))
        samples = (sample for sample in every if only is None or sample[0] in only)
        extractor = self.spec.load()
        networks = 1 if extractor.device.type == "cuda" else self.threads
        with threads.pool(self.threads, "decode") as decoding, threads.pool(networks, "network") as computing:
            photos = ahead(self._photo, samples, decoding, most=2 * extractor.call * networks + 2)
            yield from ahead(self._block, batches(photos, extractor.call), computing, most=networks + 1)

    def _photo(self, sample: shards.Sample) -> Photo:
        key, members = sample
        picture = images.decode(members["jpg"])
        tensor = self.spec.load().input(picture)
        path = json.loads(members["json"])["path"]
        return Photo(key, tensor, picture.size[::-1], pseudo.cut_up(picture, self.recipe), path)

    @torch.inference_mode()
    def _block(self, photos: Sequence[Photo]) -> Block:
        extractor = self.spec.load()
        features = extractor.features(torch.stack([photo.tensor for photo in photos]))
        fields = pseudo.tokens(features, self.recipe.levels)
        return Block(photos, fields, extractor.backbone.corners, features if self.features else None)
