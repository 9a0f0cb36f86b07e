"""Cluster the sampled embeddings: exact Lloyd, spread over the workers.

    python -m jobs.kmeans experiment=tiny
    python -m jobs.kmeans experiment=photos corpus.root=PHOTOS backbone.weights=FILE source.clusters=60

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "source.clusters",
    "source.iterations",
    "source.restarts",
    "seed",
    "cluster.workers",
)

if __name__ == "__main__":
    main("kmeans", __doc__, KEYS)
