"""Keys of the report on pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import at_least, key


@dataclass
class QualityConfig:
    """The report on clusters and regions, and their atlas; nothing is trained on what it finds."""

    enabled: bool = True
    """Whether jobs.pipeline makes it, of clusters or of refined masks; jobs.quality does of any source's labels."""
    masks: str | None = key(None, path=True)
    """Folder of class masks named as the images (PNG indices, 255 void), for this report alone; none = no figures that
    need labels. corpus.kind=scenes has its own."""
    shards: int | None = key(64, at_least(1))
    """Corpus shards that are looked at, each a uniform sample of the corpus; none = all."""
    clusters: int = key(120, at_least(1))
    """Clusters in the atlas, the largest ones, on pages of up to 60."""
    regions: int = key(6, at_least(1))
    """Most central regions shown of each, from as many images."""
