"""What an evaluation measures, as its configuration says: the labelled images, and the models beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from cluster.engine.stage import Work
from cluster.evaluate.episode_list import Item
from cluster.evaluate.measure import DataSpec, MeasuredModel
from cluster.evaluate.settings import EvaluateMeans, EvaluateSettings, enough, refuse_seen
from cluster.features import backbone
from cluster.features.backbone import BackboneSpec
from fss import heads, segmenter
from fss.backbones import fingerprint
from fss.datasets import Dataset

EvaluateWork: TypeAlias = Work[EvaluateSettings, EvaluateMeans]

FLOORS = ("prototype", "smoothed")
"""What a trained head has to beat: the field's floor, and the read-out that residual heads start from."""


def data_spec(work: EvaluateWork) -> DataSpec:
    """Which labelled images models are measured on."""
    chosen, where = work.settings.data, work.means.data
    root = where.root or str(work.inputs["render"].folder)
    return DataSpec(chosen.name, root, where.list_file, tuple(chosen.options.items()))


def entries(work: EvaluateWork) -> tuple[MeasuredModel, ...]:
    """What is measured: training-free models first, the model last; all candidates of it if labels select."""
    chosen, folder = work.settings, work.means.exported
    if folder is not None:
        spec = _exported(folder)
        name = segmenter.read_about(folder)["model"]["name"]
        return (*_free(work, spec, FLOORS), *_trained(chosen, name, spec, folder))
    assert chosen.backbone is not None
    assert chosen.head is not None
    spec = backbone.spec(chosen.backbone, work.means.weights, work.inputs)
    name = chosen.head.name
    if name in heads.training_free():
        return (*_free(work, spec, (), name), *_free(work, spec, (name,), None, chosen.head.options))
    models = list(_free(work, spec, FLOORS))
    if chosen.backbone.weights == "pretrain":
        untrained = replace(spec, weights="random", seed=chosen.seed)
        models.insert(
            0, MeasuredModel(f"{heads.training_free()['prototype']}, random backbone", untrained, "prototype")
        )
    folder = work.inputs["train"].folder / "model"
    spec = _exported(folder) if chosen.tuned else spec
    return (*models, *_trained(chosen, f"{name}, meta-trained", spec, folder))


def _exported(folder: Path) -> BackboneSpec:
    """The backbone of an exported model."""
    chosen = segmenter.read_about(folder)["backbone"]
    levels = chosen.get("levels")
    return BackboneSpec(
        name=chosen["name"],
        weights=str(folder / "backbone.safetensors"),
        stride=chosen["stride"],
        size=chosen["size"],
        seed=0,
        padding=chosen["padding"],
        levels=None if levels is None else tuple(levels),
        interpolation=chosen.get("interpolation", "bilinear"),
        artefacts=chosen.get("artefacts"),
        debias=chosen.get("debias", 0.0),
    )


def refuse_trained_on(models: Sequence[MeasuredModel], dataset: Dataset, items: Sequence[Item]) -> None:
    """Refuse to measure any of the models on classes of these episodes that it was trained on, see `refuse_seen`."""
    tested = sorted({dataset.class_names[way.class_id - 1] for item in items for way in item.episode.ways})
    for entry in models:
        if entry.folder:
            refuse_seen(entry.label, segmenter.read_about(Path(entry.folder))["facts"], tested)


def _free(
    work: EvaluateWork,
    spec: BackboneSpec,
    usual: Sequence[str],
    without: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[MeasuredModel]:
    asked = work.settings.baselines if options is None else None
    for name in usual if asked is None else asked:
        if name != without:
            own = options or {}
            index = _index(work, spec) if heads.read_options(name, own)[0].looks_up_regions else None
            yield MeasuredModel(heads.training_free()[name], spec, name, tuple(own.items()), index)


def _index(work: EvaluateWork, spec: BackboneSpec) -> str:
    """The folder of the model that the stage index exported.

    Raises:
        ValueError: if its regions were seen by another backbone than that of `spec`.
    """
    folder = work.inputs["index"].folder
    theirs = segmenter.read_about(folder)["backbone"]["fingerprint"]
    if theirs != fingerprint(spec.load().backbone):
        raise ValueError(
            "baselines: expected an index of regions as the measured model's backbone sees them, got one of another "
            "backbone; set backbone= and backbone.weights= to those that the model was trained with"
        )
    return str(folder)


def _trained(chosen: EvaluateSettings, label: str, spec: BackboneSpec, folder: Path) -> list[MeasuredModel]:
    if chosen.select == "holdout":
        return [MeasuredModel(label, spec, "trained", (), str(folder))]
    kept = enough(folder, chosen.select)
    return [MeasuredModel(f"{label}, step {c.step}", spec, "trained", (), str(folder), str(c.path)) for c in kept]
