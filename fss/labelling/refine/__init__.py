"""Masks of whole things, without labels: what is salient in an image, and what the most similar images agree on.

A salient side is often right about where the thing is and wrong about where it ends. The most similar things of other
images say it better: their read-outs are averaged, in rounds (`consensus`). What holds too much of the image or of its
border is left out, superpixels of the photo vote on the rest (`sharpen`), and what comes of it is clustered like any
other region, with segments inside of it as layers of their own (`layers`).

All of it is of one *group* of images in memory, whose embeddings may be rounded to float16 or projected to fewer
dimensions: only their cosines count.
"""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import FROM_ZERO, SHARE, at_least, key, up_to


@dataclass
class Keys:
    """How masks are refined."""

    neighbours: int = key(5, at_least(1))
    """Most similar regions of other images that say what belongs to a thing."""
    rounds: int = key(2, FROM_ZERO)
    """Of the consensus; 0 = the cores of the salient sides as they are."""
    keep: float = key(1.0, SHARE)
    """Share of a group's masks that are kept: those whose neighbours are most alike."""
    max_border: float = key(0.3, up_to(1))
    """Largest share of the image's outermost cells that a mask holds."""
    max_area: float = key(0.6, up_to(1))
    """Largest share of the image that a mask covers."""
    vote: bool = True
    """Whether superpixels of the photo vote on the mask."""
    clusters: int = key(40, at_least(1))
    """Clusters of a group's masks, and as many of the segments inside of them; fewer where they would have no four
    members."""
    granularities: list[int] = key([2, 3, 5], at_least(1))
    """Segments an image at each granularity, of which those inside of the mask are layers of their own; [] = masks
    alone."""
    inside: float = key(0.7, SHARE)
    """Least share of such a segment that lies inside of the mask."""
