"""Export a read-out that looks up regions of the unlabelled corpus, with its index of them.

    python -m jobs.index experiment=tiny model=corpus_readout
    python -m jobs.index experiment=photos model=corpus_readout corpus.root=PHOTOS backbone.weights=FILE

The stages it reads are run first if they are not done yet. The folder it names is a model for jobs.predict.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "pair.min_area",
    "pair.max_border",
    "cluster.workers",
)

if __name__ == "__main__":
    main("index", __doc__, KEYS)
