"""The configuration of a run: typed and complete. A file a group; `conf/` holds the presets, `build` makes it.

Every field is set in exactly one place; what follows from others is computed, never configured. What may be in a field
stands beside it, what contradicts between groups in `cluster.config.contradictions`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cluster.config.backbone import BackboneConfig
from cluster.config.cluster import ClusterConfig
from cluster.config.corpus import CorpusConfig
from cluster.config.model import ModelConfig
from cluster.config.plan import PlanConfig
from cluster.config.pretrain import PretrainConfig
from cluster.config.protocol import ProtocolConfig
from cluster.config.quality import QualityConfig
from cluster.config.refine import RefineConfig
from cluster.config.tracking import TrackingConfig
from cluster.config.train import TrainConfig
from fss import heads
from fss.datasets import DatasetKeys, pascal5i
from fss.keys import Rule, at_least, key, one_of, ranged
from fss.labelling.sources import clusters
from fss.tasks.pairing import cross_image
from fss.tasks.pairing.parts.rules import Rules

__all__ = [
    "BackboneConfig",
    "ClusterConfig",
    "Config",
    "CorpusConfig",
    "ModelConfig",
    "PlanConfig",
    "PretrainConfig",
    "ProtocolConfig",
    "QualityConfig",
    "RefineConfig",
    "TrackingConfig",
    "TrainConfig",
    "baselines",
    "episodes",
    "numbers",
    "plain",
    "seeds",
    "seeds_given",
    "shots",
]


#: What lies below root beside the runs; and bytes of a name that leave room for what is made of it.
_BESIDE_RUNS, _LONGEST = ("compare", "features", "mlartifacts", "mlflow.db", "registered"), 200


def _is_folder(name: str) -> bool:
    """Whether it is a path below root that stays there, that file systems take, and that is no run's neighbour's."""
    parts = str(name).split("/")
    fit = (part.strip(". ") and part.isprintable() and len(part.encode()) <= _LONGEST for part in parts)
    return all(fit) and parts[0] not in _BESIDE_RUNS


_FOLDER = Rule(
    _is_folder,
    lambda: f"the name of a folder below root, of {_LONGEST} bytes at most and none of {', '.join(_BESIDE_RUNS)}",
)


@dataclass
class Config:
    """One run. `<root>/<name>/` holds all it writes."""

    name: str = key("run", _FOLDER)
    """Folder of the run below root."""
    root: str = "runs"
    """Folder of all runs, or s3://BUCKET/FOLDER, see docs/object_storage.md."""
    seed: int = key(0, ranged("a number below 2**63", lambda value: value < 2**63))
    """Of everything that is drawn."""
    stale: str = key("warn", one_of("warn", "remake", "error"))
    """What to do with stages that other code made: use them and say so, make them and what was made of them again, or
    stop."""
    corpus: CorpusConfig = key(CorpusConfig)
    backbone: BackboneConfig = key(BackboneConfig)
    source: Any = key(clusters.Keys)
    """The `Keys` of the chosen module of `fss.labelling.sources`, a `SourceKeys`."""
    quality: QualityConfig = key(QualityConfig)
    refine: RefineConfig = key(RefineConfig)
    pair: Rules = key(cross_image.Keys)
    """The `Keys` of the chosen module of `fss.tasks.pairing`."""
    pretrain: PretrainConfig = key(PretrainConfig)
    model: ModelConfig = key(ModelConfig)
    train: TrainConfig = key(TrainConfig)
    dataset: DatasetKeys = key(pascal5i.Keys)
    """The `Keys` of the chosen module of `fss.datasets`."""
    cluster: ClusterConfig = key(ClusterConfig)
    tracking: TrackingConfig = key(TrackingConfig)
    protocol: ProtocolConfig = key(ProtocolConfig)
    plan: PlanConfig = key(PlanConfig)
    fold: Any = "all"
    """Fold to evaluate, or `all`."""
    shots: Any = 1
    """Supports of each class of an episode, or a list: shots=[1,5]."""
    ways: int = key(1, at_least(1))
    """Classes of an episode."""
    episodes: int | None = None
    """Episodes of each fold, number of shots and seed; none = the protocol's."""
    seeds: Any = None
    """Lists of episodes, by their seeds: seeds=[0,1,2]; none = the protocol's, or `seed` alone."""
    episode_list: str | None = key(None, path=True)
    """A list that evaluate wrote (episode_list.parquet), to be run again instead of drawing."""
    baselines: Any = None
    """Training-free models beside the model, `anchors` for all published ones; none = the floors that a trained one has
    to beat."""
    select: str = key("holdout", one_of("holdout", "base_classes", "test_classes"))
    """Which candidate of training is measured: holdout (the exported one, chosen without labels), or, by name only and
    said in the table, the best on the other folds' classes (base_classes) or on the tested ones (test_classes)."""
    save_predictions: bool = False
    """Whether evaluate keeps the predicted masks."""
    out: str | None = None
    """Where evaluate, predict and plan write for the user; evaluate's default is its stage folder."""

    def problems(self) -> list[str]:
        """What is wrong with what evaluation is asked for."""
        wrong = []
        if self.fold != "all" and not (isinstance(self.fold, int) and self.fold >= 0):
            wrong.append(f"fold: expected a number from 0 or all, got {self.fold!r}")
        for name, least, value in (("shots", 1, self.shots), ("seeds", 0, seeds_given(self))):
            if not _different(value, least):
                wrong.append(f"{name}: expected a number from {least} or a list of different ones, got {value!r}")
        if episodes(self) < 1:
            wrong.append(f"episodes: expected at least 1, got {episodes(self)}")
        return wrong


def _different(value: Any, least: int) -> bool:
    """Whether `value` is a number from `least`, or a list of different ones."""
    try:
        given = numbers(value)
        return min(given) >= least and len(set(given)) == len(given)
    except (TypeError, ValueError):
        return False


def seeds(config: Config) -> tuple[int, ...]:
    """The seeds of the lists of episodes, in the order given."""
    return numbers(seeds_given(config))


def seeds_given(config: Config) -> Any:
    """What sets the seeds, as it was given."""
    return next(value for value in (config.seeds, config.protocol.seeds, config.seed) if value is not None)


def shots(config: Config) -> tuple[int, ...]:
    """The numbers of supports to evaluate, in the order given."""
    return numbers(config.shots)


def episodes(config: Config) -> int:
    """Episodes of each fold, number of shots and seed."""
    counts = config.protocol.episodes
    usual = counts.get(config.dataset.name, counts.get("default", 1000))
    return usual if config.episodes is None else config.episodes


def baselines(config: Config) -> tuple[str, ...] | None:
    """The training-free models that were asked for by name; None for the usual ones."""
    chosen = config.baselines
    if chosen is None:
        return None
    asked = map(str, chosen if isinstance(chosen, list | tuple) else [chosen])
    return tuple(dict.fromkeys(name for one in asked for name in (heads.anchors() if one == "anchors" else (one,))))


def numbers(value: Any) -> tuple[int, ...]:
    """One number, or a list of them, as a tuple; ValueError for anything else."""
    return tuple(int(str(number)) for number in (value if isinstance(value, list | tuple) else [value]))


def plain(value: Any) -> dict[str, Any]:
    """A config dataclass as plain nested dictionaries."""
    return dataclasses.asdict(value)
