"""How source `cam` is configured: image-level names, a classifier, word vectors, a gate."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.engine.files import content_hash
from cluster.label.sources import saliency
from cluster.label.sources.source import Source
from cluster.train.tasks import labelled
from fss import shards
from fss.labelling import heatmaps, words
from fss.labelling.names import ImageNames, names_of_masks, read_names
from fss.labelling.sources.cam import CamLabeller, Keys

if TYPE_CHECKING:
    from cluster.engine.run import Run


def _names(run: Run) -> ImageNames:
    """Those of the table at source.names, or of the class masks of the data set's training images: of the classes that
    the fold does not test.
    """
    table = run.config.source.names
    if table is not None:
        return _of_table(table)
    _need_fold(run)
    return _of_masks(labelled.source(run), labelled.names(run))


def _need_fold(run: Run) -> None:
    if run.config.fold == "all":
        raise ValueError(
            "fold: expected the number of the fold to be tested with source=cam and no source.names, as the names of "
            "the classes that it tests are not to be seen, got all; set fold=0, then 1, 2 and 3, or source.names=FILE"
        )


@functools.lru_cache(maxsize=2)
def _of_table(table: str) -> ImageNames:
    return ImageNames.of(read_names(table))


@functools.lru_cache(maxsize=2)
def _vectors(path: str, names: tuple[str, ...]) -> np.ndarray:
    """Kept, for every stage after asks for the settings, and a file may hold millions of words."""
    return words.vectors(path, names)


@functools.lru_cache(maxsize=2)
def _of_masks(source: labelled.Source, images: tuple[str, ...]) -> ImageNames:
    dataset, classes = source.open()
    return ImageNames.of(names_of_masks(dataset, images, classes))


def _hidden(run: Run, names: ImageNames) -> list[str]:
    """Classes called like these are not asked for: a name that is looked for, any of the data set, source.exclude."""
    source = run.config.source
    if not source.exclude_named:
        return list(source.exclude)
    others = () if source.names is not None else labelled.source(run).open()[0].class_names
    return [*source.exclude, *names.names, *others]


def _similarity(source: Keys, names: ImageNames, hidden: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(T, N) cosines of names and classes, minus infinity where a class is left out; and which are, by name."""
    if source.words is None:
        raise ValueError(
            "expected word vectors for source=cam or protocol.supports=names: set source.words=FILE (.vec, .txt, .bin, "
            ".npz)"
        )
    classes = heatmaps.categories(source.classifier, source.classes)
    every = _vectors(source.words, (*names.names, *classes))
    cosines = words.similarities(every[: len(names.names)], every[len(names.names) :])
    gone = heatmaps.excluded(classes, hidden)
    cosines[:, gone] = -np.inf
    return cosines, [classes[index] for index in gone]


def _labeller(run: Run) -> CamLabeller:
    names = _names(run)
    return _build(run, names, _hidden(run, names))


def namer(run: Run, class_names: Sequence[str]) -> CamLabeller:
    """What makes masks of the names of a data set's classes, label i being class i, by this run's `source` keys.

    Raises:
        ValueError: as for source=cam.
    """
    return _build(run, *_all_classes(run, class_names))


def namer_settings(run: Run, class_names: Sequence[str]) -> dict[str, Any]:
    """Plain JSON values of all that shapes the masks of `namer` beside the backbone."""
    return _shaping(run, *_all_classes(run, class_names))


def _all_classes(run: Run, class_names: Sequence[str]) -> tuple[ImageNames, list[str]]:
    source, names = run.config.source, tuple(class_names)
    return ImageNames(names, {}), [*source.exclude, *(names if source.exclude_named else ())]


def _build(run: Run, names: ImageNames, hidden: Sequence[str]) -> CamLabeller:
    source = run.config.source
    cosines, _ = _similarity(source, names, hidden)
    shares = heatmaps.weigh(cosines, source.weighting, source.temperature)
    weights = _weights(source)
    number = heatmaps.load(source.classifier, weights).classes
    if number != cosines.shape[1]:
        raise ValueError(
            f"expected the names of the {number} classes of {source.classifier} in its order, one a line, "
            f"got {cosines.shape[1]}; set source.classes=FILE"
        )
    gate = saliency.SOURCE.labeller(run) if source.gate else None
    return CamLabeller(source.classifier, weights, names, shares, gate, source.scale, source.threshold)


def _weights(source: Keys) -> str:
    if source.classifier_weights is None:
        raise ValueError(
            "expected a classifier's weights to look for names: set source.classifier_weights=FILE (the state dict of "
            "source.classifier, all layers), torchvision, or random"
        )
    return source.classifier_weights


def _settings(run: Run) -> dict[str, Any]:
    names = _names(run)
    images = shards.sha256(shards.dumps(sorted(names.images.items())))
    return {"source": "cam", "images": images, **_shaping(run, names, _hidden(run, names))}


def _shaping(run: Run, names: ImageNames, hidden: Sequence[str]) -> dict[str, Any]:
    """Files count by what they say; `left_out` are the classes that the classifier was not asked for."""
    source = run.config.source
    cosines, left_out = _similarity(source, names, hidden)
    weights = _weights(source)
    chosen: dict[str, Any] = {
        "levels": list(source.levels),
        "classifier": source.classifier,
        "weights": weights if weights in ("random", "torchvision") else content_hash(weights),
        "names": list(names.names),
        "words": source.words and Path(source.words).name,
        "similarity": shards.sha256(cosines.round(4).tobytes()),
        "left_out": left_out,
        "gate": saliency.SOURCE.settings(run) if source.gate else None,
    }
    return chosen | {key: getattr(source, key) for key in ("weighting", "temperature", "scale", "threshold")}


def _facts(run: Run) -> dict[str, Any]:
    """What an exported model says of the names it has seen: evaluation refuses to test on them."""
    names = _names(run).names
    return {"labelled": "names", "dataset": run.config.dataset.name, "fold": run.config.fold, "classes": list(names)}


SOURCE = Source(_labeller, _settings, facts=_facts)
