"""What the benchmarks of learning share: a corpus with its features, a short meta-training, a short measurement.

The library alone, in one process: no stage, no checkpoint, so that a row of a table takes minutes.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fss import backbones, rng
from fss.backbones.extractor import Extractor
from fss.datasets import Dataset, areas, open_dataset
from fss.evaluation import bootstrap, episodes, running
from fss.evaluation.bootstrap import Columns, Difference
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


@dataclasses.dataclass(frozen=True)
class Marks:
    """What a head did, episode by episode, and the foreground pixels that it predicted and that there are."""

    columns: Columns
    predicted: int
    true: int

    def figures(self) -> dict[str, float]:
        """mIoU and FB-IoU in percent and predicted over true area.

        IoU of a class over all its episodes, the mean over a fold's classes, then over the folds.
        """
        made = bootstrap.replicate(self.columns, samples=100)
        miou, fb_iou = (100 * float(made.values(name)[0]) for name in ("miou", "fb_iou"))
        return {"miou": miou, "fb_iou": fb_iou, "area_ratio": self.predicted / self.true}

    def over(self, other: Marks) -> Difference:
        """mIoU less that of another head on the same episodes, with its paired 95 % interval, in shares."""
        return bootstrap.difference(bootstrap.replicate(self.columns), bootstrap.replicate(other.columns))


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
        """The figures of `marks`."""
        return self.marks(head, shots).figures()

    def marks(self, head: Head | Sequence[Head], shots: int = 1) -> Marks:
        """What a head did on `count` episodes of each fold; with a head for each fold if there are several."""
        heads = list(head) if isinstance(head, Sequence) else [head] * len(self.dataset.folds)
        rows: list[tuple[int, ...]] = []
        for fold, (one, classes) in enumerate(zip(heads, self.dataset.folds, strict=True)):
            pool = episodes.pool(self._areas, classes, episodes.EpisodeRules(min_area=2048, shots=shots))
            drawn = episodes.draw(pool, count=self.count, seed=0)
            for number, result in enumerate(running.run(one, self.photos, drawn, self.side)):
                (c,) = result.counts
                rows.append((fold, 0, number, result.episode.ways[0].class_id, *dataclasses.astuple(c)))
        *columns, predicted, true = np.array(rows, np.int64).T
        return Marks(Columns(*columns), int(predicted.sum()), int(true.sum()))


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
