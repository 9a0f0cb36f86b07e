"""Meta-train a few-shot segmentation model on the pseudo-tasks with DeepSpeed.

    python -m jobs.train experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("train")
