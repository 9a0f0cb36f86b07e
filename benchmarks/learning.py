"""What the benchmarks of learning share: a corpus with its features, a short meta-training, a short measurement.

The library alone, in one process: no stage, no checkpoint, so that a row of a table takes minutes.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fss import backbones, rng
from fss.backbones.extractor import Extractor
from fss.datasets import Dataset, areas, open_dataset
from fss.evaluation import episodes, running
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.running import Photos
from fss.heads.parts import losses
from fss.heads.parts.capabilities import Settles, Studies
from fss.heads.parts.head import Head
from fss.imaging import images
from fss.labelling import pseudo
from fss.tasks import task, views
from fss.training import study
from fss.training.bank import FeatureBank, batch_features, inputs
from fss.training.step import MetaModule

LOSS_CELLS = 65
_TRAIN = "ImageSets/Segmentation/train.txt"


class Corpus:
    """The unlabelled images: bytes, features of their fixed views, and the embeddings that are cut up."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        extractor: Extractor,
        seed: int,
        num_views: int,
        store: FeatureStore | None = None,
    ):
        store = store or FeatureStore(None, 0)
        self.jpegs = {name.lower(): (folder / f"{name}.jpg").read_bytes() for name in names}
        self.bank = FeatureBank(extractor, 8 << 30)
        self.seed, self.num_views = seed, num_views
        for key, jpeg in self.jpegs.items():
            width, height = images.upright_size(jpeg)
            chosen = [views.draw(seed, key, number, views.Augment(), (height, width)) for number in range(num_views)]
            for number, view in enumerate(chosen):
                self._add(store, f"{seed}-{number}-{key}", (key, view), jpeg)

    def _add(self, store: FeatureStore, name: str, place: tuple[str, views.View], jpeg: bytes) -> None:
        """Put a view into the bank, from the store if that has it."""
        stored = store.get(name)
        if stored is None:
            store.put(name, self.bank.get({place: inputs(jpeg, place[1], self.bank.extractor)})[place])
        else:
            self.bank.put(place, stored)

    @property
    def corners(self) -> bool:
        """The geometry of the grid."""
        return self.bank.extractor.backbone.corners

    def cut(self, key: str, recipe: pseudo.EmbeddingOptions) -> tuple[torch.Tensor, np.ndarray]:
        """The image's (h, w, D) embeddings, and its superpixels where the recipe wants them."""
        superpixel = recipe.segments == "superpixel"
        return self.field(key, recipe.levels), pseudo.cut_up(
            images.decode(self.jpegs[key]), recipe
        ) if superpixel else None

    def enlarge(self, key: str, labels: np.ndarray, recipe: pseudo.EmbeddingOptions) -> np.ndarray:
        """One layer of labels at the image's own size."""
        size = images.upright_size(self.jpegs[key])[::-1]
        return pseudo.enlarge(labels[None], size, recipe, self.corners)[0]

    def field(self, key: str, levels: Sequence[str]) -> torch.Tensor:
        """(h, w, D) embeddings of the image as it is."""
        name = (key, views.View())
        features = {level: values.float() for level, values in self.bank.get({name: None})[name].items()}
        return pseudo.tokens(features, levels)


@dataclasses.dataclass(frozen=True)
class Course:
    """A short meta-training: AdamW, linear warm-up, cosine; the averaged weights are what is measured."""

    steps: int = 200
    batch: int = 8
    lr: float = 1e-3
    warmup: int = 30
    decay: float = 0.98
    clip: float = 1.0
    loss: str = "cross_entropy_dice"

    def rate(self, step: int) -> float:
        """The learning rate at `step`."""
        warm = min(1.0, (step + 1) / self.warmup)
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def meta_train(corpus: Corpus, made: Sequence[task.Task], head: Head, course: Course, seed: int = 0) -> Head:
    """The head with the averaged weights of a course on these tasks; `seed` shuffles them and their views."""
    extractor = corpus.bank.extractor
    torch.manual_seed(seed)
    module = MetaModule(head.train(), losses.by_name(course.loss), extractor.backbone.corners)
    optimizer = torch.optim.AdamW(module.parameters(), lr=course.lr, weight_decay=1e-2)
    layout = task.BatchLayout(LOSS_CELLS, extractor.grid, extractor.backbone.corners, extractor.size)
    schedule = task.Schedule((len(made),), seed)
    data = task.Batches(schedule, lambda *_: made, course.batch, corpus.seed, corpus.num_views, layout)
    if isinstance(head, Studies) and head.studies:
        plain = dataclasses.replace(data, num_views=1)
        looked = study.distinct((plain[number] for number in range(len(made) // course.batch)), head.studies)
        head.study(study.Album(looked, corpus.bank), seed)
    average = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(course.decay), use_buffers=False
    )
    for step in range(course.steps):
        batch = data[step]
        query, support = batch_features(corpus.bank, batch)
        loss = module(query, support, batch.support, batch.truth)["loss"]
        for group in optimizer.param_groups:
            group["lr"] = course.rate(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), course.clip)
        optimizer.step()
        if isinstance(head, Settles) and (noted := head.noted()) is not None:
            head.settle(noted)
        average.update_parameters(module)
    return average.module.head.eval()


class Exam:
    """The labelled images of PASCAL-5i's layout and the same episodes of every fold for whoever is measured."""

    def __init__(
        self,
        root: Path,
        extractor: Extractor,
        count: int,
        store: FeatureStore | None = None,
        names: Sequence[str] | None = None,
    ):
        self.dataset, self.count, self.side = _opened(root, names), count, extractor.size
        self._folder = tempfile.TemporaryDirectory()
        store = store or FeatureStore(Path(self._folder.name), 8 << 30)
        self.photos = Photos(self.dataset, extractor, store, Memory(1 << 30))
        self._areas = {name: areas(self.dataset, name) for name in self.dataset.names}

    def __call__(self, head: Head | Sequence[Head], shots: int = 1) -> dict[str, float]:
        """mIoU and FB-IoU in percent and predicted over true area; with a head for each fold if there are several.

        Per fold `count` episodes; IoU of a class over all its episodes, the mean over all classes of all folds.
        """
        heads = list(head) if isinstance(head, Sequence) else [head] * len(self.dataset.folds)
        ious, fb, predicted, true = [], np.zeros(4, np.int64), 0, 0
        for one, classes in zip(heads, self.dataset.folds, strict=True):
            per_class: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
            pool = episodes.pool(self._areas, classes, episodes.EpisodeRules(min_area=2048, shots=shots))
            for result in running.run(one, self.photos, episodes.draw(pool, count=self.count, seed=0), self.side):
                (c,) = result.counts
                per_class[result.episode.ways[0].class_id] += (c.intersection, c.union)
                fb += (c.intersection, c.union, c.background_intersection, c.background_union)
                predicted, true = predicted + c.predicted, true + c.true
            ious.append(np.mean([i / u for i, u in per_class.values()]))
        fb_iou = (fb[0] / fb[1] + fb[2] / fb[3]) / 2
        return {"miou": 100 * float(np.mean(ious)), "fb_iou": 100 * float(fb_iou), "area_ratio": predicted / true}


def _opened(root: Path, names: Sequence[str] | None) -> Dataset:
    """The val list's images, or those of the train list that are called `names`."""
    if names is None:
        return open_dataset("pascal5i", str(root), None)
    return dataclasses.replace(open_dataset("pascal5i", str(root), _TRAIN), names=tuple(names))


def choose(root: Path, number: int, seed: int) -> list[str]:
    """Names of `number` of the train images, by a hash of their names."""
    names = (root / _TRAIN).read_text().split()
    return sorted(names, key=lambda name: rng.mix(seed, "which", name))[:number]


def network(weights: str, size: int, padding: str) -> Extractor:
    """The frozen MobileNetV2."""
    return Extractor(backbones.build("mobilenet_v2", weights, stride=16, padding=padding), size)
