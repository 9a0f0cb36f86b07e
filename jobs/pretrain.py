"""Pre-train the backbone on the corpus without labels (backbone.weights=pretrain).

    python -m jobs.pretrain experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("pretrain")
