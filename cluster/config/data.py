"""The part of the configuration that turns images into pseudo-tasks: corpus, source and pairing."""

from __future__ import annotations

from dataclasses import dataclass, field

from fss.imaging.colour import Reading
from fss.tasks.pairing.rules import Rules

# Beside a key that is called list, and one that is called range, these names must be made elsewhere.
_Bands = list[int]
_Range = list[float]
_Problems = list[str]


@dataclass
class CorpusConfig:
    """The unlabelled images: a folder or URL, or `scenes`, which renders the embedded corpus first."""

    kind: str = "folder"
    root: str | None = None
    """Folder, tar, or pattern of tars (`*`, `{000..009}`), path or fsspec URL; a list's entries are relative to it."""
    list: str | None = None
    """Text file (one image a line), .csv or .parquet, a path or URL: entries are paths, URLs, or VOC-style names
    without folder and extension."""
    column: str | None = None
    """Column of a .csv or .parquet list; none = the first of path, url, file, filename, image."""
    longer_side: int = 512
    """Larger images are shrunk to this longer side, pixels."""
    shard_size: int = 500
    """Images a shard, about: an image's shard follows from its content."""
    min_side: int = 32
    """Images with a shorter side than this are rejected, pixels."""
    max_pixels: int = 64_000_000
    """Images that would decode to more pixels are rejected by their header."""
    max_bytes: int = 1 << 29
    """Larger files are rejected unread, bytes."""
    bands: _Bands | None = None
    """Bands of a TIFF of several that are shown as red, green and blue, or one as grey, counted from 1: [4,3,2]; none =
    as the file says."""
    range: _Range | None = None
    """Numbers that are shown black and white, [low,high], in files of more than 8 bits; none = see docs/inputs.md."""
    near_duplicates: int | None = None
    """Largest number of differing bits of 64-bit perceptual hashes at which two images count as one (3 to 6 finds other
    encodings and sizes of a picture); none = only exact copies are found."""
    scenes: int = 1200
    """Rendered images for kind=scenes (training)."""
    scenes_val: int = 400
    """Rendered images of the evaluation list for kind=scenes, from other seeds."""
    scene_size: int = 128
    """Side of a rendered scene, pixels."""

    def reading(self) -> Reading:
        """`bands` and `range` as `fss.imaging` takes them."""
        span = None if self.range is None else (self.range[0], self.range[1])
        return Reading(None if self.bands is None else tuple(self.bands), span)

    def reading_problems(self) -> _Problems:
        """What is wrong with `bands` and `range`, a sentence each."""
        found = []
        if self.bands is not None and not (len(self.bands) in (1, 3) and min(self.bands) >= 1):
            found.append(f"corpus.bands: expected one or three numbers of bands from 1, as [3,2,1], got {self.bands}")
        if self.range is not None and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            found.append(f"corpus.range: expected the numbers of black and white, as [0,4095], got {self.range}")
        return found


@dataclass
class SourceConfig:
    """What makes pseudo-labels of images: each source has its keys, `levels` belongs to all."""

    name: str = "clusters"
    """`clusters`, or one that labels without clustering, so that jobs.sample and jobs.kmeans are not run: `saliency`,
    `cam`, `mining`."""
    levels: list[str] = field(default_factory=lambda: ["mid", "high"])
    """Backbone levels whose embeddings, side by side, are looked at and describe regions."""
    # clusters
    clusters: int = 40
    segments: str = "ncut"
    """How images are cut up: `ncut` = normalised cut, `agglomerate` = neighbouring tokens merged, `superpixel` =
    Felzenszwalb's at pixel resolution, `none` = every pixel for itself."""
    unit: str = "segments"
    """What is clustered: mean embeddings of `segments`, or `pixels`, whose clusters then vote in each segment."""
    granularities: list[int] = field(default_factory=lambda: [3, 5, 8])
    """Segments an image at each granularity (segments=ncut or agglomerate)."""
    points_per_image: int = 64
    """Pixel embeddings kept of each image for k-means (unit=pixels)."""
    shards: int | None = None
    """Corpus shards that are sampled for k-means; none = all."""
    iterations: int = 30
    init: str = "k-means++"
    spherical: bool = True
    restarts: int = 1
    """k-means runs from as many starts; the one with the lowest inertia is kept."""
    tolerance: float = 1e-5
    """A k-means run ends once an iteration lowers the inertia by no more than this share."""
    hierarchy: list[int] = field(default_factory=list)
    """Numbers of clusters of the levels below `clusters`, the finest first: [30000, 5000] with clusters=500."""
    # cam
    names: str | None = None
    """Table of image-level names, .csv or .tsv: image, names; none = the class masks of the data set's training images
    (train.images), reduced to the names of the classes that the fold does not test."""
    words: str | None = None
    """Word vectors of names and of the classifier's classes: .vec, .txt, fastText's .bin, .npz, .safetensors."""
    classifier: str = "vgg16"
    """An image classifier of torchvision, and the file of its weights, all layers (or torchvision, random)."""
    classifier_weights: str | None = None
    classes: str | None = None
    """Names of its classes in its order, one a line; none = those of torchvision's ImageNet weights."""
    exclude: list[str] = field(default_factory=list)
    """Its classes that are called like these are not asked for."""
    exclude_named: bool = True
    """Nor are those called like an image-level name, or like a class of the data set that names come from."""
    weighting: str = "softmax"
    """Of its classes by word similarity: `softmax`, `inverse_distance`, or `paper` (Eq. 2 as printed)."""
    temperature: float = 0.1
    """Of the softmax."""
    scale: str = "image"
    """Largest value of a class's map: 1 of `each`, or 1 of all in the `image`."""
    threshold: float = 0.15
    """Share of a name's largest heat from which on a pixel belongs to it."""
    gate: bool = True
    """Whether only salient pixels do: as source=saliency finds them, `maps` included."""
    # saliency
    maps: str | None = None
    """Folder of maps named as the images, PNG; none = the salient side of the backbone's own normalised cut."""
    maps_kind: str = "saliency"
    """What `maps` hold: `saliency` from 0 to 255, salient from 128 on, or `classes`: all but 0 and void (255)."""
    # mining
    model: str | None = None
    """Exported mining model, or run's folder, whose latent classes label the images; `levels` must be the model's."""


@dataclass
class PairConfig(Rules):
    """How regions become few-shot tasks: the rules of `fss.tasks.pairing.pairs`, and the sizes of reads and writes."""

    group_shards: int = 8
    """Corpus shards that are paired together; a group is held in memory by one worker."""
    tasks_per_shard: int = 256


@dataclass
class QualityConfig:
    """The report on clusters and regions, and their atlas; nothing is trained on what it finds."""

    enabled: bool = True
    """Whether jobs.pipeline makes it, after label."""
    masks: str | None = None
    """Folder of class masks named as the images (PNG indices, 255 void), for this report alone; none = no figures that
    need labels. corpus.kind=scenes has its own."""
    shards: int | None = 64
    """Corpus shards that are looked at, each a uniform sample of the corpus; none = all."""
    clusters: int = 120
    """Clusters in the atlas, the largest ones, on pages of up to 60."""
    regions: int = 6
    """Most central regions shown of each, from as many images."""
