"""What an evaluation measures, as its configuration says: the labelled images, and the models beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config import Config, baselines
from cluster.engine.run import Run
from cluster.evaluate.episode_list import Item
from cluster.evaluate.measure import DataSpec, Entry
from cluster.features import backbone
from cluster.features.backbone import BackboneSpec
from cluster.train import candidates
from fss import heads, segmenter
from fss.datasets import Dataset

FLOORS = ("prototype", "smoothed")
"""What a trained head has to beat: the field's floor, and the read-out that residual heads start from."""


def data_spec(run: Run) -> DataSpec:
    """Which labelled images this run is measured on.

    Raises:
        ValueError: if dataset.root is not set.
    """
    chosen = run.config.dataset
    if chosen.name == "scenes" and not chosen.root:
        return DataSpec("scenes", str(run.manifest("render").folder), None)
    if not chosen.root:
        raise ValueError(f"expected the folder of {chosen.name}: give it as dataset.root=FOLDER")
    return DataSpec(chosen.name, str(Path(chosen.root).resolve()), chosen.list, tuple(chosen.options().items()))


def entries(run: Run) -> tuple[Entry, ...]:
    """What is measured: training-free models first, the model last; all candidates of it if labels select."""
    config, name = run.config, run.config.model.name
    if name == "trained":
        if not config.model.path:
            raise ValueError("expected the folder of an exported model: give it as model=FOLDER")
        folder = segmenter.find(config.model.path)
        spec = _exported(folder)
        name = segmenter.read_about(folder)["model"]["name"]
        return (*_free(config, spec, FLOORS), *_trained(config, name, spec, folder))
    spec = backbone.spec(run)
    if name in heads.training_free():
        if config.select != "holdout":
            raise ValueError(
                f"select={config.select}: expected a trained model, {name} has no candidates to select from"
            )
        return (*_free(config, spec, (), name), *_free(config, spec, (name,), None, run.config.model.options))
    found = list(_free(config, spec, FLOORS))
    if config.backbone.weights == "pretrain":
        found.insert(
            0, Entry(f"{heads.training_free()['prototype']}, random backbone", backbone.untrained(run), "prototype")
        )
    folder = run.manifest("train").folder / "model"
    spec = _exported(folder) if config.train.tune else spec
    return (*found, *_trained(config, f"{name}, meta-trained", spec, folder))


def _exported(folder: Path) -> BackboneSpec:
    """The backbone of an exported model."""
    chosen = segmenter.read_about(folder)["backbone"]
    weights, padding = str(folder / "backbone.safetensors"), chosen["padding"]
    return BackboneSpec(chosen["name"], weights, chosen["stride"], chosen["size"], 0, padding=padding)


def refuse_seen(found: Sequence[Entry], dataset: Dataset, items: Sequence[Item]) -> None:
    """Refuse to measure a model on classes whose labels it was trained on (train.tasks=labelled).

    Raises:
        ValueError: naming the model, some of the classes and the fold that it was trained for.
    """
    tested = {dataset.class_names[way.class_id - 1] for item in items for way in item.episode.ways}
    for entry in found:
        facts = segmenter.read_about(Path(entry.folder))["facts"] if entry.folder else {}
        seen = sorted(tested & set(facts.get("classes", ())))
        if seen:
            raise ValueError(
                f"{entry.label}: expected classes that it was not trained on with labels, got {', '.join(seen[:5])}"
                f"{' ...' if len(seen) > 5 else ''}; {_remedy(facts)}"
            )


def _remedy(facts: Mapping[str, Any]) -> str:
    if facts["fold"] == "all":
        return "no fold was kept from it: leave the names of the tested classes out of source.names and train again"
    return f"it was trained for fold {facts['fold']} of {facts['dataset']}: set fold={facts['fold']}"


def _free(
    config: Config,
    spec: BackboneSpec,
    usual: Sequence[str],
    without: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Entry]:
    asked = baselines(config) if options is None else None
    for name in usual if asked is None else asked:
        if name != without:
            yield Entry(heads.training_free()[name], spec, name, tuple((options or {}).items()))


def _trained(config: Config, label: str, spec: BackboneSpec, folder: Path) -> list[Entry]:
    if config.select == "holdout":
        return [Entry(label, spec, "trained", (), str(folder))]
    found = candidates.read(folder.parent)
    if len(found) < 2:
        raise ValueError(
            f"select={config.select}: expected candidates of training beside {folder}, found {len(found)}; train with "
            "train.candidates of at least 2, or leave select=holdout"
        )
    return [Entry(f"{label}, step {c.step}", spec, "trained", (), str(folder), str(c.path)) for c in found]
