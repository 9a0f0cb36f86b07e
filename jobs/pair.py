"""Pair regions of one cluster across images into few-shot tasks.

    python -m jobs.pair experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("pair")
