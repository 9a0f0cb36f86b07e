"""Run the frozen backbone over corpus shards and keep a few embeddings of each image.

    python -m jobs.sample experiment=tiny
    python -m jobs.sample experiment=photos corpus.root=PHOTOS source=pixels source.points_per_image=32

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "backbone.size",
    "source.points_per_image",
    "source.shards",
    "cluster.workers",
)

if __name__ == "__main__":
    main("sample", __doc__, KEYS)
