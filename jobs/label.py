"""Write label maps and region descriptors for every image.

    python -m jobs.label experiment=NAME [key=value ...]

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

if __name__ == "__main__":
    main("label")
