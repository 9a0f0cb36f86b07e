"""One pass over a corpus shard: decode -> network input -> backbone -> embeddings, decoding beside the network.

On a CPU every image goes through the network alone: kernels, and with them the last bits, depend on the batch, and
large batches are slower there (activations leave the cache). So neither the batch nor the number of threads shapes the
result; on a GPU only rounding depends on the batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.engine.stage import File, Manifest, Unit, read_file
from cluster.features.backbone import BackboneSpec
from fss import shards
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.sources import Block, Photo
from fss.prefetch import ahead


def units(corpus: Manifest) -> list[Unit]:
    """One unit for every corpus shard, whose payload is its `File`."""
    return [Unit(Path(file.path).stem.replace("corpus", "part"), file) for file in corpus.named(".tar")]


@dataclass(frozen=True)
class FeaturePass:
    """Embeds the images of corpus shards; `batch` is that of a GPU and shapes nothing."""

    corpus: Path
    spec: BackboneSpec
    recipe: pseudo.EmbeddingOptions
    batch: int = 16
    features: bool = False
    """Whether blocks bring the backbone's levels beside the embeddings."""

    def blocks(self, file: File, only: Collection[str] | None = None) -> Iterator[Block]:
        """The images of a shard, embedded block by block; as many threads as torch has decode ahead of the network.

        Of some of them, if `only` their keys are given.
        """
        every = shards.unpack(read_file(self.corpus, file))
        samples = (sample for sample in every if only is None or sample[0] in only)
        extractor = self.spec.load()
        batch = self.batch if extractor.device.type == "cuda" else 1
        waiting: list[Photo] = []
        with ThreadPoolExecutor(torch.get_num_threads(), "decode") as threads:
            for photo in ahead(self._photo, samples, threads, most=2 * batch + 2):
                waiting.append(photo)
                if len(waiting) == batch:
                    yield self._block(waiting)
                    waiting = []
        if waiting:
            yield self._block(waiting)

    def _photo(self, sample: shards.Sample) -> Photo:
        key, members = sample
        picture = images.decode(members["jpg"])
        tensor = images.to_tensor(picture, self.spec.size)
        path = json.loads(members["json"])["path"]
        return Photo(key, tensor, picture.size[::-1], pseudo.cut_up(picture, self.recipe), path)

    @torch.inference_mode()
    def _block(self, photos: Sequence[Photo]) -> Block:
        extractor = self.spec.load()
        features = extractor.features(torch.stack([photo.tensor for photo in photos]))
        fields = pseudo.tokens(features, self.recipe.levels)
        return Block(photos, fields, extractor.backbone.corners, features if self.features else None)
