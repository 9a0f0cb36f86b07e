"""Measure clusters and regions, and draw the atlas of clusters.

    python -m jobs.quality experiment=NAME [quality.masks=FOLDER] [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("quality")
