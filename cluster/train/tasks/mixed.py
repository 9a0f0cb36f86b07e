"""Tasks of several runs in stated proportions (train.mix): this run's own, and those of other runs' pair stages.

Whatever source and pairing made them, tasks have one form, so that one head may learn from all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config.train import own_units, units
from cluster.engine.manifest import Manifest, read_manifest
from cluster.train.tasks import Tasks
from cluster.train.tasks.written import written
from fss import rng
from fss.tasks import task as tasks
from fss.tasks.mixture import Mixture


@dataclass(frozen=True)
class MixedPart:
    """Tasks with a weight. `prefix` goes before the names of its images where those of others mean other pictures."""

    tasks: Tasks
    weight: int
    name: str
    prefix: str = ""


@dataclass(frozen=True)
class MixedTasks:
    """The tasks of all parts, their shards one after the other. Picklable; `schedule` draws by the weights."""

    parts: tuple[MixedPart, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""
        return tuple(count for part in self.parts for count in part.tasks.counts)

    def schedule(self, seed: int) -> Mixture:
        """The order of training: each part's own by a seed of its own, in proportion."""
        schedules = (
            tasks.Schedule(part.tasks.counts, rng.mix(seed, "mix", number)) for number, part in enumerate(self.parts)
        )
        return Mixture(tuple(schedules), tuple(part.weight for part in self.parts))

    def __call__(self, number: int, epoch: int) -> Sequence[tasks.Task]:
        """The tasks of shard `number` in an epoch of its part."""
        part, shard = self._places[number]
        own = part.tasks(shard, epoch)
        return tasks.LazyTasks(len(own), lambda place: _renamed(own[place], part.prefix)) if part.prefix else own

    @functools.cached_property
    def _places(self) -> list[tuple[MixedPart, int]]:
        return [(part, shard) for part in self.parts for shard in range(len(part.tasks.counts))]


def _renamed(task: tasks.Task, prefix: str) -> tasks.Task:
    return dataclasses.replace(task, keys=tuple(prefix + key for key in task.keys))


def order(files: Tasks, seed: int) -> tasks.Order:
    """The order in which tasks are trained on."""
    return files.schedule(seed) if isinstance(files, MixedTasks) else tasks.Schedule(files.counts, seed)


def settings(mix: Mapping[str, float]) -> dict[str, int]:
    """What of train.mix shapes the outcome: the shares by what the pair stages' fingerprints stand for, not by place.

    Raises:
        ValueError: see `others`.
    """
    return {pair.fingerprint: weight for _, pair, weight in others(mix)}


def others(mix: Mapping[str, float]) -> list[tuple[str, Manifest, int]]:
    """As it was given, its pair stage and the weight, of each entry of train.mix, in the order of the fingerprints.

    Raises:
        ValueError: if there are no finished pairs, or the same ones twice.
    """
    parts = sorted(
        ((given, _pairs(given), units(share)) for given, share in mix.items()), key=lambda o: o[1].fingerprint
    )
    for (one, first, _), (other, second, _) in itertools.pairwise(parts):
        if first.fingerprint == second.fingerprint:
            raise ValueError(f"train.mix: {one} and {other} have the same pairs; give them one share together")
    return parts


def facts(mix: Mapping[str, float], own: Mapping[str, Any]) -> dict[str, Any]:
    """The mixture, and as `classes` all whose names or labels any of the sources has seen: see `refuse_seen`.

    Raises:
        ValueError: see `others`; if the label maps that pairs were made of are gone, which say what they have seen.
    """
    seen = {*own.get("classes", ())}
    for given, pair, _ in others(mix):
        seen |= {*names_seen(pair, f"train.mix: expected in {given}")}
    return {"mix": settings(mix)} | (
        {"labelled": own.get("labelled", "names"), "classes": sorted(seen)} if seen else {}
    )


def names_seen(stage: Manifest, expected: str) -> tuple[str, ...]:
    """The image-level names that the source of these labels, or of those that these pairs were made of, has seen.

    Raises:
        ValueError: beginning with `expected`, if the label maps that pairs were made of are gone.
    """
    labels: Manifest | None = stage
    while labels is not None and labels.stage != "label":
        above = "refine" if "refine" in labels.inputs else "label"
        labels = read_manifest(labels.folder.parents[1] / above / labels.inputs[above] / "manifest.json")
    if labels is None:
        raise ValueError(
            f"{expected}, beside its pairs, the label stage that they were made of, which says what names its source "
            "has seen; run jobs.pair with that run's arguments again"
        )
    return tuple(labels.settings["source"].get("names", ()))


def _pairs(given: str) -> Manifest:
    """The pair stage that finished last in a run's folder, or the one whose folder is given."""
    base = Path(given).resolve()
    pairs = read_manifest(base / "pair" / "manifest.json") or read_manifest(base / "manifest.json")
    if pairs is None or pairs.stage != "pair":
        raise ValueError(
            f"train.mix: expected the folder of a run whose pairs are done, got {given}"
            f"{'' if base.is_dir() else ', which is not there'}; run jobs.pair with that run's arguments first"
        )
    if pairs.folder.name != pairs.fingerprint:  # the run's copy of the manifest names files from one folder above
        return _pairs(str(pairs.folder / pairs.fingerprint))
    lost = [file.path for file in pairs.files if not (pairs.folder / file.path).is_file()]
    if lost:
        raise ValueError(f"train.mix: {given} lacks {lost[0]} of its pairs; run jobs.pair with its arguments again")
    return pairs


def mixed(
    own: tuple[Tasks, Tasks] | None, mix: Mapping[str, float], corpus: str | None
) -> tuple[MixedTasks, MixedTasks]:
    """Own tasks with those of other runs, for training and for validation, each in the proportions of train.mix.

    Args:
        own: this run's, None where the others have all.
        mix: see `TrainConfig.mix`.
        corpus: fingerprint of the shards of this run's images; images of the same name in others may differ in size.

    Raises:
        ValueError: if there are no pairs, or tasks differ in their number of supports.
    """
    train, held = [], []
    if own is not None:
        train.append(MixedPart(own[0], own_units(mix), "this run"))
        held.append(MixedPart(own[1], own_units(mix), "this run"))
    for given, pair, weight in others(mix):
        shards = pair.inputs["shard"]
        prefix = "" if shards == corpus else f"{shards}-"
        for kind, files in zip((train, held), written(pair), strict=True):
            kind.append(MixedPart(files, weight, given, prefix))
    _check(train)
    return MixedTasks(tuple(train)), MixedTasks(tuple(part for part in held if sum(part.tasks.counts)))


def _check(parts: Sequence[MixedPart]) -> None:
    shots: dict[str, int] = {}
    for part in parts:
        if not sum(part.tasks.counts):
            raise ValueError(f"train.mix: expected tasks in {part.name}, got none; loosen its pair.* or leave it out")
        first = next(number for number, count in enumerate(part.tasks.counts) if count)
        shots[part.name] = len(part.tasks(first, 0)[0].keys) - 1
    if len(set(shots.values())) > 1:
        told = ", ".join(f"{number} in {name}" for name, number in shots.items())
        raise ValueError(
            f"train.mix: expected tasks of one number of supports, distractors included, got {told}; set pair.shots "
            "and pair.distractors alike and run jobs.pair again"
        )
