"""The whole pipeline while things go wrong: python -m tests.chaos [--rounds 30] [--first 0] [--seed 1] (make chaos).

Three Ray nodes, each in a network namespace, MLflow's server on Postgres and, in some of the rounds, a bucket. In each
round a run goes from nothing to its end while one or two faults strike it, drawn from the seed; a command that ends is
run again. In the end its files have to be those of a quiet run, byte by byte, MLflow has to hold all of it, and nothing
else may be left. A line a round; exit status 1 if one failed. Linux, as root: everything runs in namespaces of its own,
and ends with them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.places import ROOT


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n\n")[1])
    parser.add_argument("--rounds", type=int, default=30, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--seed", type=int, default=1, help="what the faults are drawn from")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)  # of the process inside of the namespaces
    return parser.parse_args()


def outside(told: argparse.Namespace) -> int:
    """Start the same command in namespaces of its own, whose end is the end of all that ran there."""
    programs = ("setpriv", "unshare", "ip", "tc")
    if os.geteuid() or not all(map(shutil.which, programs)):
        sys.exit(f"error: expected root and the programs {', '.join(programs)}, which make the machines")
    home = Path(tempfile.mkdtemp(prefix="chaos-", dir="/var/tmp"))
    bound = ("setpriv", "--pdeathsig", "KILL")  # it goes with this process, and all in its namespaces with it
    apart = (*bound, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    command = (*apart, sys.executable, "-m", "tests.chaos", *sys.argv[1:], "--home", str(home))
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        print(f"logs and files of the rounds that failed: {home}")
    else:
        shutil.rmtree(home)
    return status


if __name__ == "__main__":
    told = arguments()
    if told.home is None:
        sys.exit(outside(told))
    from tests.chaos.rounds import play

    sys.exit(play(told.home, told.seed, range(told.first, told.first + told.rounds)))
