"""Run the frozen backbone over corpus shards and keep a few embeddings of each image.

    python -m jobs.sample experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("sample")
