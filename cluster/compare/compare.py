"""Several evaluations on the same episodes, side by side: figures with intervals, and paired differences to one model.

Two intervals that overlap say little: most of their width is which episodes were drawn, and that is the same for both
models. The paired difference is without it, and is what decides.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.config.compare import CompareConfig
from cluster.engine import publish
from cluster.engine.manifest import read_manifest
from cluster.engine.refused import RefusedError
from cluster.evaluate.results import ModelResult
from cluster.storage.bucket import is_address
from cluster.tracking.journal import flatten
from fss.evaluation import bootstrap
from fss.evaluation.bootstrap import Columns, Difference, Interval, Replicates

METRICS = {"miou": "mIoU", "fb_iou": "FB-IoU"}
_COLUMNS = ("model", "shots", "ways", *(column.name for column in dataclasses.fields(Columns)))
_SHOWN = 8
_REMEDY = "evaluate all with the same dataset.*, fold=, shots=, ways=, episodes= and seed="

Group = tuple[int, int]
"""(ways, shots)."""
Key = tuple[str, Group, str | int]
"""(model, group, figure): ``miou``, ``fb_iou`` or a class."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: `figures` is its metrics.json, `rows` its episodes.parquet."""

    folder: Path
    figures: Mapping[str, Any]
    rows: pa.Table

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation at `path`, or the newest one of the run at `path`.

        Raises:
            ValueError: if there is none, it is damaged, or it does not say on which episodes it was measured.
        """
        folder = find(path)
        manifest = read_manifest(folder / "manifest.json")
        if manifest is not None:  # results that were copied elsewhere have none
            manifest.path("metrics.json"), manifest.path("episodes.parquet")
        figures, file = publish.read_json(folder / "metrics.json"), folder / "episodes.parquet"
        missing = sorted(set(_COLUMNS) - set(pq.read_schema(file).names))
        if missing or not figures.get("episodes_sha256"):
            lacks = f"the columns {', '.join(missing)}" if missing else "episodes_sha256"
            raise RefusedError(f"{folder}: an evaluation of an older version lacks {lacks}; evaluate that model again")
        return cls(folder, figures, pq.read_table(file, columns=list(_COLUMNS)))

    @property
    def run(self) -> Path:
        """The folder of the run: <root>/<name>; of results copied elsewhere, their folder itself."""
        return self.folder.parents[1] if self.folder.parent.name == "evaluate" else self.folder

    @property
    def models(self) -> list[str]:
        """Names in the order of its table: the floors first."""
        return list(self.rows["model"].unique().to_pylist())

    def columns(self, model: str) -> dict[Group, Columns]:
        """The counts of one of its models."""
        rows = self.rows.filter(pc.equal(self.rows["model"], model))
        table = {name: rows[name].to_numpy() for name in _COLUMNS if name != "model"}
        every = Columns.of(table)
        groups = sorted(set(zip(table["ways"].tolist(), table["shots"].tolist(), strict=True)))
        return {(w, k): every.where((table["ways"] == w) & (table["shots"] == k)) for w, k in groups}


@dataclass(frozen=True)
class Model:
    """One row of the comparison. `given` is how the user named it in runs=, empty for a floor that came along."""

    name: str
    given: str
    evaluation: Evaluation
    columns: Mapping[Group, Columns]
    label: str = ""

    def equals(self, other: Model) -> bool:
        """Whether both have one name and the same counts in every episode."""
        return (self.name, self.columns.keys()) == (other.name, other.columns.keys()) and all(
            np.array_equal(column, vars(other.columns[group])[name])
            for group, columns in self.columns.items()
            for name, column in vars(columns).items()
        )


@dataclass(frozen=True)
class Comparison:
    """All figures with their intervals, and the differences of all models but `base` to it, on the same episodes."""

    models: Sequence[Model]
    base: str
    samples: int
    seed: int
    results: Sequence[ModelResult]
    figures: Mapping[Key, Interval]
    gaps: Mapping[Key, Difference]
    class_names: Mapping[int, str]

    @property
    def first(self) -> Model:
        """The model of the first run that the user named."""
        return next(model for model in self.models if model.given)

    @property
    def others(self) -> list[str]:
        """The models that are compared to the base."""
        return [model.label for model in self.models if model.label != self.base]

    @property
    def groups(self) -> list[Group]:
        """Ways and shots, in order."""
        return list(self.models[0].columns)

    def classes(self, group: Group) -> list[int]:
        """The classes measured under `group`, in order."""
        return sorted(c for label, g, c in self.figures if (label, g) == (self.base, group) and isinstance(c, int))


def find(path: Path) -> Path:
    """The folder with metrics.json and episodes.parquet that `path` means: itself, or a run's newest `evaluate/*`.

    Raises:
        ValueError: if there is none.
    """
    newest = sorted(path.glob("evaluate/*/metrics.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for folder in (path, *(file.parent for file in newest)):
        if (folder / "metrics.json").is_file() and (folder / "episodes.parquet").is_file():
            return folder.resolve()
    raise RefusedError(
        f"expected an evaluation (metrics.json and episodes.parquet) in {path} or {path}/evaluate/*, found none; "
        "jobs.evaluate writes one"
    )


def compare(config: CompareConfig) -> Comparison:
    """Read, check and compare.

    Raises:
        ValueError: for folders without an evaluation, other episodes, fewer than two models, or an unknown base.
    """
    models = _models(config.runs if isinstance(config.runs, list) else [config.runs])
    base = _base(models, config.base)
    replicates = {
        (model.label, group): bootstrap.replicate(columns, config.samples, config.seed)
        for model in models
        for group, columns in model.columns.items()
    }
    figures: dict[Key, Interval] = {}
    gaps: dict[Key, Difference] = {}
    for (label, group), replicate in replicates.items():
        every: list[str | int] = [*METRICS, *replicate.classes]
        for figure in every:
            figures[label, group, figure] = bootstrap.interval(replicate, figure)
            if label != base:
                gaps[label, group, figure] = bootstrap.difference(replicate, replicates[base, group], figure)
    results = [
        _result(*key, metric, replicate, figures[*key, metric])
        for metric in METRICS
        for key, replicate in replicates.items()
    ]
    names = models[0].evaluation.figures.get("class_names", {})
    classes = {c: str(names.get(str(c), f"class {c}")) for *_, c in figures if isinstance(c, int)}
    return Comparison(models, base, config.samples, config.seed, results, figures, gaps, classes)


def _result(label: str, group: Group, metric: str, replicates: Replicates, interval: Interval) -> ModelResult:
    by_seed = list(replicates.by_seed(metric).values())
    spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None
    folds = list(replicates.by_fold(metric).values())
    return ModelResult(label, METRICS[metric], group[1], folds, spread, (interval.low, interval.high), group[0])


def _models(runs: Sequence[str]) -> list[Model]:
    """The floors, then what the user asked for, under names that differ."""
    chosen: list[Model] = []
    floors: list[Model] = []
    for run, (evaluation, name) in zip(runs, _evaluations(runs), strict=True):
        wanted = [name] if name else evaluation.models
        for one in wanted:
            model = Model(one, run if one == wanted[-1] else "", evaluation, evaluation.columns(one))
            (chosen if model.given else floors).append(model)
    _check_episodes(chosen)
    kept: list[Model] = []
    for floor in floors:
        if not any(floor.equals(other) for other in [*kept, *chosen]):
            kept.append(floor)
    models = [*kept, *chosen]
    if len(models) < 2:
        names = [model.name for model in models]
        raise RefusedError(f"expected at least two models to compare, got {names}; add to runs=[A,B]")
    return _labelled(models)


def _evaluations(runs: Sequence[str]) -> list[tuple[Evaluation, str]]:
    """The evaluation of each run, and the model that is picked of it, if any; all problems at once."""
    evaluations, problems = [], []
    for run in runs:
        path, _, name = (run, "", "") if Path(run).exists() else run.partition(":")
        if is_address(run):
            problems.append(f"runs: expected folders on a disk, got {run}; copy its folder evaluate/ and name that")
            continue
        try:
            evaluation = Evaluation.read(Path(path))
        except ValueError as error:
            problems.append(str(error))
            continue
        evaluations.append((evaluation, name))
        if name and name not in evaluation.models:
            problems.append(
                f"{path}: expected a model of {evaluation.models}, got {name!r}; a name with a comma needs quotes: "
                f"runs=['{path}:{evaluation.models[-1]}']"
            )
    if problems:
        raise RefusedError("\n  ".join(problems))
    return evaluations


def _labelled(models: Sequence[Model]) -> list[Model]:
    """Names, with the run's where two models share one, with its evaluation's where two runs do, or the whole path."""
    options = []
    for model in models:
        folder = model.evaluation.folder
        beside = (f"{model.name} ({where})" for where in (model.evaluation.run.name, folder.name, folder))
        options.append((model.name, *beside))
    counts = Counter(text for texts in options for text in set(texts))
    twice = [texts[-1] for texts in options if counts[texts[-1]] > 1]
    if twice:
        raise RefusedError(f"expected each model once, got {twice[0]} twice; name another one in runs=")
    labels = [next(text for text in texts if counts[text] == 1) for texts in options]
    return [dataclasses.replace(model, label=label) for model, label in zip(models, labels, strict=True)]


def _base(models: Sequence[Model], base: str | None) -> str:
    if base is None:
        return next(model.label for model in models if model.given)
    chosen = [model.label for model in models if base in (model.label, model.given)]
    if len(chosen) != 1:
        names = ", ".join(repr(model.label) for model in models)
        raise RefusedError(f"base: expected one of {names} or a run as in runs=, got {base!r}")
    return chosen[0]


def _check_episodes(models: Sequence[Model]) -> None:
    """Refuse to compare figures of different episodes, and say what differs."""
    problems = [problem for other in models[1:] for problem in _problems(models[0], other)]
    if problems:
        raise RefusedError("expected evaluations of the same episodes:\n  " + "\n  ".join(problems) + f"\n{_REMEDY}")


def _problems(first: Model, other: Model) -> Iterator[str]:
    a, b = (str(model.evaluation.figures["episodes_sha256"]) for model in (first, other))
    if a == b and first.columns.keys() == other.columns.keys():
        return
    mine, theirs = _facts(first), _facts(other)
    differ = [key for key in dict.fromkeys([*mine, *theirs]) if mine.get(key) != theirs.get(key)]
    told = "; ".join(f"{key}: {mine.get(key, 'none')} and {theirs.get(key, 'none')}" for key in differ[:_SHOWN])
    more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
    why = f"{told}{more}" if differ else "their settings agree, so the labelled images do not"
    yield f"{first.given} has the list {a[:12]}, {other.given} has {b[:12]} ({why})"


def _facts(model: Model) -> dict[str, str]:
    figures = model.evaluation.figures
    facts = flatten({key: figures.get(key, {}) for key in ("dataset", "protocol")})
    for (ways, shots), columns in model.columns.items():
        for fold in np.unique(columns.fold).tolist():
            episodes = np.unique(columns.where(columns.fold == fold).keys()[:3], axis=1)
            facts[f"episodes of fold {fold}, {ways}-way {shots}-shot"] = str(episodes.shape[1])
    return facts
