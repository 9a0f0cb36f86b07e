"""Write label maps and region descriptors for every image.

    python -m jobs.label experiment=tiny
    python -m jobs.label experiment=photos corpus.root=PHOTOS backbone.weights=FILE source=parts

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "source.clusters",
    "source.granularities",
    "cluster.workers",
    "cluster.gpus_per_worker",
)

if __name__ == "__main__":
    main("label", __doc__, KEYS)
