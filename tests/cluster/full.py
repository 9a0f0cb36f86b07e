"""A run whose disk is full in the middle of stages: python -m tests.cluster.full STAGE,... FOLDER WHOLE SAVED [KEY=...]

FOLDER is made a small file system of its own, which only this process sees; WHOLE is the folder of a run of the same
settings that had all the room it needed. Before each stage the disk is filled but for half of what the stage writes.
Then there is room again, and the next stage follows. Prints as JSON what each stage said and what it left half-written;
SAVED is then a copy of the finished run.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.training import loop
from jobs._config import load
from tests.cluster import processes
from tests.cluster.here import here
from tests.cluster.killed import leftovers

_PAGE, _SIZE = 4096, 64 * 2**20


def pages(folder):
    """What the files below a folder take, a whole number of pages each."""
    return sum(-(-path.stat().st_size // _PAGE) for path in folder.rglob("*") if path.is_file())


def fill(disk, left):
    """A file that leaves so many pages."""
    path, about = disk / "ballast", os.statvfs(disk)
    with path.open("wb") as file:
        for _ in range(about.f_bavail - left):
            file.write(bytes(_PAGE))
    return path


def main(stages, disk, whole, saved, arguments):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "full", disk], check=True)
    loop.train, told = processes.train, {}
    config = load([*arguments, f"root={disk}"])
    for stage in stages:
        ballast, said = fill(disk, pages(whole / stage) // 2), "nothing"
        try:
            here(config).ensure(stage)
        except (OSError, ValueError) as error:
            said = str(error)
        told[stage] = {"said": said, "left": leftovers(disk)}
        ballast.unlink()
    here(config).ensure(stages[-1])
    print(json.dumps(told))
    shutil.copytree(disk / config.name, saved)


if __name__ == "__main__":
    main(sys.argv[1].split(","), *map(Path, sys.argv[2:5]), sys.argv[5:])
