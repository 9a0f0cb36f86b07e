"""How source `cam` is configured: image-level names, a classifier, word vectors, a gate."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.config import Config
from cluster.datasets import training
from cluster.datasets.training import TrainingImages, TrainingPlace, TrainingSettings
from cluster.engine.settings import complaints, picked
from cluster.features.backbone import weights_hash
from cluster.label.sources import saliency
from cluster.label.sources.saliency import SaliencyMeans, SaliencySettings
from cluster.label.sources.source import LabellerInputs, SourceStage
from fss import shards
from fss.labelling import heatmaps, words
from fss.labelling.names import ImageNames, names_of_masks, read_names
from fss.labelling.sources.cam import CamLabeller, Keys

_NAMED = ("random", "torchvision")


@dataclass(frozen=True)
class CamSettings:
    """What shapes label maps. Files count by what they say."""

    levels: tuple[str, ...]
    names: tuple[str, ...]
    """What is looked for: label i is `names[i - 1]`."""
    images: str | None
    """A hash over which image shows which names."""
    training: TrainingSettings | None
    """Of images whose class masks were reduced to names."""
    classifier: str
    weights: str
    words: str
    """The name of the file of word vectors, whose content shapes the next two."""
    similarity: str
    """A hash over the cosines of names and the classifier's classes."""
    left_out: tuple[str, ...]
    """Classes that the classifier was not asked for."""
    gate: SaliencySettings | None
    weighting: str
    temperature: float
    scale: str
    threshold: float


@dataclass(frozen=True)
class CamMeans:
    """Where the user's files are."""

    table: str | None
    training: TrainingPlace
    words: str
    weights: str
    classes: str | None
    gate: SaliencyMeans


def settings(config: Config) -> CamSettings:
    """What of the keys and of the files that they name shapes label maps.

    Raises:
        ValueError: for files that are missing or cannot be used.
    """
    source = config.source
    if source.names is None and training.renders(config):
        names = tuple(sorted(training.trained_names(config)))
        return replace(_shaping(config, names, training.class_names(config)), training=training.settings(config))
    table = _names(config)
    names = _distinct(table)
    others = () if source.names is not None else training.class_names(config)
    shaping = replace(_shaping(config, names, others), images=_hash(ImageNames.of(table)))
    return shaping if source.names is not None else replace(shaping, training=training.settings(config))


def means(config: Config) -> CamMeans:
    """Where the user's files are."""
    source = config.source
    return CamMeans(
        table=source.names,
        training=training.place(config),
        words=_words(source),
        weights=_weights(source),
        classes=source.classes,
        gate=saliency.means(config),
    )


def namer_settings(config: Config, class_names: Sequence[str]) -> CamSettings:
    """What shapes the masks that are made of the names of a data set's classes, label i being class i."""
    return _shaping(config, tuple(class_names), class_names)


def build(chosen: CamSettings, where: CamMeans, images: Mapping[str, tuple[int, ...]]) -> CamLabeller:
    """What labels images whose labels, by their path, are known."""
    names = ImageNames(chosen.names, images)
    known = heatmaps.categories(chosen.classifier, where.classes)
    cosines = _cosines(where.words, names.names, known)
    cosines[:, [index for index, name in enumerate(known) if name in chosen.left_out]] = -np.inf
    shares = heatmaps.weigh(cosines, chosen.weighting, chosen.temperature)
    gate = None if chosen.gate is None else saliency.labeller(chosen.gate, where.gate)
    return CamLabeller(chosen.classifier, where.weights, names, shares, gate, chosen.scale, chosen.threshold)


def check_files(config: Config) -> list[str]:
    """Whether the word vectors and the classifier are there and can be used, and the user's maps."""
    source = config.source
    wrong = complaints(lambda: _vectors(_words(source), _categories(source)), lambda: _classifier(source))
    return [*wrong, *(saliency.check(config) if source.gate else ())]


def check(config: Config) -> list[str]:
    """Whether the files are there, and the names, and whether they go together."""
    source, wrong = config.source, check_files(config)
    if source.names is None:
        wrong += complaints(lambda: _need_fold(config)) or list(training.problems(config))
    else:
        wrong += complaints(lambda: _of_table(str(source.names)))
    return wrong or complaints(lambda: settings(config))


def _inputs(config: Config) -> tuple[str, ...]:
    return training.needed(config) if config.source.names is None else ()


def _labeller(given: LabellerInputs) -> CamLabeller:
    chosen, where = given.settings, given.means
    if chosen.training is None:
        table = _of_table(str(where.table))
    else:
        table = _of_masks(training.images(chosen.training, where.training, given.inputs))
    return build(chosen, where, _numbered(table, chosen.names))


def _numbered(table: Mapping[str, Iterable[str]], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    numbers = {name: number for number, name in enumerate(names, 1)}
    return {image: tuple(sorted({numbers[name] for name in shown})) for image, shown in table.items()}


def _names(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Those of the table at source.names, or of the class masks of the user's training images: of the classes that the
    fold does not test.
    """
    if config.source.names is not None:
        return _of_table(config.source.names)
    _need_fold(config)
    return _of_masks(training.given(config))


def _distinct(table: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for shown in table.values() for name in shown}))


def _hash(names: ImageNames) -> str:
    return shards.sha256(shards.dumps(sorted(names.images.items())))


def _need_fold(config: Config) -> None:
    if config.fold == "all":
        raise ValueError(
            "fold: expected the number of the fold to be tested with source=cam and no source.names, as the names of "
            "the classes that it tests are not to be seen, got all; set fold=0, then 1, 2 and 3, or source.names=FILE"
        )


@functools.lru_cache(maxsize=2)
def _of_table(table: str) -> Mapping[str, tuple[str, ...]]:
    return read_names(table)


@functools.lru_cache(maxsize=2)
def _vectors(path: str, names: tuple[str, ...]) -> np.ndarray:
    """Kept, for every stage after asks for the settings, and a file may hold millions of words."""
    return words.vectors(path, names)


@functools.lru_cache(maxsize=2)
def _of_masks(images: TrainingImages) -> Mapping[str, tuple[str, ...]]:
    dataset, classes = images.open()
    return names_of_masks(dataset, images.used(), classes)


def _cosines(vectors: str, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(T, N) of names and the classifier's classes."""
    every = _vectors(vectors, (*names, *classes))
    return words.similarities(every[: len(names)], every[len(names) :])


def _shaping(config: Config, names: tuple[str, ...], others: Sequence[str]) -> CamSettings:
    """The settings for these names. Classes called like them or like `others` are not asked for, if the keys say so."""
    source = config.source
    hidden = [*source.exclude, *((*names, *others) if source.exclude_named else ())]
    known = _categories(source)
    cosines, gone = _cosines(_words(source), names, known), heatmaps.excluded(known, hidden)
    cosines[:, gone] = -np.inf
    weights = _weights(source)
    return picked(
        CamSettings,
        source,
        names=names,
        images=None,
        training=None,
        weights=weights if weights in _NAMED else weights_hash(weights),
        words=Path(_words(source)).name,
        similarity=shards.sha256(cosines.round(4).tobytes()),
        left_out=tuple(known[index] for index in gone),
        gate=saliency.settings(config) if source.gate else None,
    )


def _words(source: Keys) -> str:
    if source.words is None:
        raise ValueError(
            "source.words: expected word vectors for source=cam or protocol.supports=names, got none; set "
            "source.words=FILE (.vec, .txt, .bin, .npz)"
        )
    return source.words


def _weights(source: Keys) -> str:
    if source.classifier_weights is None:
        raise ValueError(
            "source.classifier_weights: expected a classifier's weights to look for names, got none; set "
            "source.classifier_weights=FILE (the state dict of source.classifier, all layers), torchvision, or random"
        )
    return source.classifier_weights


def _categories(source: Keys) -> tuple[str, ...]:
    return heatmaps.categories(source.classifier, source.classes)


def _classifier(source: Keys) -> None:
    number = heatmaps.load(source.classifier, _weights(source)).classes
    given = len(_categories(source))
    if number != given:
        raise ValueError(
            f"source.classes: expected the names of the {number} classes of {source.classifier} in its order, one a "
            f"line, got {given}; set source.classes=FILE"
        )


SOURCE = SourceStage(settings, _labeller, means=means, check=check, inputs=_inputs, named=True)
