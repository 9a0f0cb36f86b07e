"""Cluster the sampled embeddings: exact Lloyd, spread over the workers.

    python -m jobs.kmeans experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("kmeans")
