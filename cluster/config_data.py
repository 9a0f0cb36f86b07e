"""The part of the configuration that turns images into pseudo-tasks: corpus, source and pairing."""

from __future__ import annotations

from dataclasses import dataclass, field

from fss.pairs import Rules


@dataclass
class CorpusConfig:
    """The unlabelled images: a folder or URL, or `scenes`, which renders the embedded corpus first."""

    kind: str = "folder"
    root: str | None = None
    """Folder or fsspec URL below which images are looked for, or to which the list's entries are relative."""
    list: str | None = None
    """Text file, one image a line: a path, or a VOC-style name without folder and extension."""
    longer_side: int = 512
    """Larger images are shrunk to this longer side, pixels."""
    shard_size: int = 500
    """Images a shard, about: an image's shard follows from its content."""
    min_side: int = 32
    """Images with a shorter side than this are rejected, pixels."""
    max_pixels: int = 64_000_000
    """Images that would decode to more pixels are rejected by their header."""
    scenes: int = 1200
    """Rendered images for kind=scenes (training)."""
    scenes_val: int = 400
    """Rendered images of the evaluation list for kind=scenes, from other seeds."""
    scene_size: int = 128
    """Side of a rendered scene, pixels."""


@dataclass
class SourceConfig:
    """What makes pseudo-labels of images."""

    name: str = "clusters"
    clusters: int = 40
    segments: str = "spectral"
    """Unit that is clustered: `none` = every pixel embedding, `spectral` = segments by normalised cut."""
    granularities: list[int] = field(default_factory=lambda: [3, 5, 8])
    """Segments an image at each granularity (segments=spectral)."""
    levels: list[str] = field(default_factory=lambda: ["mid", "high"])
    """Backbone levels whose embeddings, side by side, are clustered."""
    points_per_image: int = 64
    """Pixel embeddings kept of each image for k-means (segments=none)."""
    shards: int | None = None
    """Corpus shards that are sampled for k-means; none = all."""
    iterations: int = 30
    init: str = "k-means++"
    spherical: bool = True


@dataclass
class PairConfig(Rules):
    """How regions become few-shot tasks: the rules of `fss.pairs`, and the size of what is read and written."""

    group_shards: int = 8
    """Corpus shards that are paired together; a group is held in memory by one worker."""
    tasks_per_shard: int = 256
