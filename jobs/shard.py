"""Check and normalise unlabelled images, and write them as shards with a ledger of every input.

    python -m jobs.shard experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("shard")
