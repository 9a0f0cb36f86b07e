"""The configuration of a run: typed and complete; `cluster.config.check` checks it, `conf/` holds the presets.

Every field is set in exactly one place; what follows from others is computed, never configured.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cluster.config.data import CorpusConfig, PairConfig, QualityConfig, SourceConfig
from cluster.config.train import ModelConfig, PretrainConfig, TrainConfig


@dataclass
class BackboneConfig:
    """The frozen feature extractor."""

    name: str = "resnet50"
    weights: str = "random"
    """`random`, `torchvision`, `pretrain` (this run's own pre-training stage), or a path or fsspec URL."""
    stride: int = 16
    size: int = 417
    """Side of the square network input, pixels; see fss.backbones for the sizes at which padding is exact."""
    padding: str = "zeros"
    """What convolutions see beyond the border: `zeros`, as networks are trained, or the picture continued by `reflect`
    or `replicate`, which keeps segments and predictions from clinging to the border."""
    precision: str = "fp32"
    """bf16 where the processor computes in it (GPUs, AMX, AVX-512 BF16); features are float32 all the same."""


@dataclass
class DatasetConfig:
    """The labelled images that models are measured on."""

    name: str = "pascal5i"
    root: str | None = None
    list: str | None = None
    """Text file below root, or any path: an image a line (fss1000: a class); none = the set's own."""
    folds: str | None = None
    """Classes of each fold of coco20i: interleaved (default) or consecutive."""
    year: int | None = None
    """2014 or 2017 for coco20i; none = whichever is there."""
    split: str | None = None
    """train, val or test (default) for fss1000 without a list."""
    num_folds: int | None = None
    """Equal parts of a folder's classes, in order; none = 1."""
    sbd: str | None = None
    """Folder of SBD's cls/*.mat for jobs.prepare; none = looked for below and beside root."""
    min_area: int = 2048
    """Pixels that a class must cover in an image, at the mask's own resolution, to make an episode (2 x 32 x 32)."""

    def options(self) -> dict[str, Any]:
        """What `fss.datasets.open_dataset` takes beside name, root and list."""
        return {key: getattr(self, key) for key in ("folds", "year", "split", "num_folds")}


@dataclass
class ProtocolConfig:
    """How episodes are drawn and scored; the presets of conf/protocol are those of the field."""

    name: str = "ours"
    order: str = "classes"
    """Which query and class come next: classes, pairs, images or random_images, see fss.evaluation.episodes."""
    tiny_queries: bool = False
    """Whether a query may be asked for a class of which it shows less than dataset.min_area (orders of images)."""
    episodes: dict[str, int] = field(default_factory=lambda: {"default": 1000})
    """Episodes of each fold, number of shots and seed, by data set; `episodes=` overrides it."""
    seeds: list[int] | None = None
    """Lists of episodes; none = one, of `seed`. `seeds=` overrides it."""
    resolution: int | None = None
    """Side in pixels of the square at which the model's resolution is scored; none = backbone.size."""
    supports: str = "masks"
    """What supports bring: `masks`, or `names`, of which the keys of `source` make masks as for source=cam."""
    headline: str = "miou"
    """The protocol's own figure: miou or miou_episode_mean, model_resolution.miou, ... as in metrics.json."""


@dataclass
class ClusterConfig:
    """Machines: how many processes, and what each takes."""

    address: str | None = None
    """Ray address to join, e.g. `auto`; none starts Ray on this machine, or joins the job's own cluster."""
    workers: int | None = None
    """Processes for the shard stages; none = as many as fit the cluster's CPUs (and GPUs)."""
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0
    images_per_batch: int = 32
    """Images that the backbone of a worker with a GPU takes at a time; on a CPU they go one by one."""
    train_workers: int = 1
    cpus_per_train_worker: int = 1
    memory_gib: float = 2.0
    """What an evaluating worker keeps of images in memory, on its GPU if it has one, and of points in k-means, GiB."""
    features: str | None = None
    """Folder of the evaluation images' features, which all workers and runs share; none = <root>/features."""
    features_gib: float = 32.0
    """Size of that folder from which on nothing more is kept there; 0 = nothing is kept on disk."""


@dataclass
class PlanConfig:
    """What `jobs.plan` predicts, and for which machines."""

    corpus_size: float | None = None
    """Images to plan for; on the command line of jobs.plan simply corpus_size=1e9."""
    images: int = 64
    """Images that the stages are measured on."""
    workers: int | None = None
    """Processes to plan for; none = as many as this cluster has."""
    network_gbit: float | None = None
    """What the cluster reads from an object store, Gbit/s; none = not looked at."""
    disk_mb_s: float | None = None
    """What the run's file system takes from all workers together, MB/s; none = what one process was seen to write."""


@dataclass
class TrackingConfig:
    """MLflow. Metrics are journaled first, so an unreachable server neither stops nor loses anything."""

    enabled: bool = True
    uri: str | None = None
    """Tracking server; none = SQLite file <root>/mlflow.db."""
    experiment: str = "few-shot segmentation"


@dataclass
class Config:
    """One run. `<root>/<name>/` holds all it writes."""

    name: str = "run"
    root: str = "runs"
    seed: int = 0
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    pair: PairConfig = field(default_factory=PairConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    fold: Any = "all"
    """Fold to evaluate, or `all`."""
    shots: Any = 1
    """Supports of each class of an episode, or a list: shots=[1,5]."""
    ways: int = 1
    """Classes of an episode."""
    episodes: int | None = None
    """Episodes of each fold, number of shots and seed; none = the protocol's."""
    seeds: Any = None
    """Lists of episodes, by their seeds: seeds=[0,1,2]; none = the protocol's, or `seed` alone."""
    episode_list: str | None = None
    """A list that evaluate wrote (episode_list.parquet), to be run again instead of drawing."""
    baselines: Any = None
    """Training-free models beside the model; none = the floors that a trained one has to beat."""
    select: str = "holdout"
    """Which candidate of training is measured: holdout (the exported one, chosen without labels), or, by name only and
    said in the table, the best on the other folds' classes (base_classes) or on the tested ones (test_classes)."""
    save_predictions: bool = False
    out: str | None = None
    """Where evaluate, predict and plan write for the user; evaluate's default is its stage folder."""


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
    return tuple(dict.fromkeys(map(str, chosen if isinstance(chosen, list | tuple) else [chosen])))


def numbers(value: Any) -> tuple[int, ...]:
    """One number, or a list of them, as a tuple; ValueError for anything else."""
    return tuple(int(str(number)) for number in (value if isinstance(value, list | tuple) else [value]))


def plain(value: Any) -> dict[str, Any]:
    """A config dataclass as plain nested dictionaries."""
    return dataclasses.asdict(value)
