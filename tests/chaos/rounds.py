"""Rounds, one after the other, on machines that stay up: what strikes each, how it ends, and the table of all."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.stages import STAGES
from jobs import sync
from jobs._config import load
from tests.chaos import bucket, verdict
from tests.chaos.machines import Machines
from tests.chaos.plan import Fault, Round, drawn
from tests.chaos.servers import LOGIN, MLFLOW, database, mlflow, store
from tests.chaos.strikes import NotEndedError, TooLateError, Yard, strike

#: A run that is small and has every stage but pre-training. Two machines work; a third takes over when one is lost.
RUN = (
    *("experiment=tiny", "backbone.weights=random", "corpus.scenes=18", "corpus.scenes_val=18", "corpus.shard_size=3"),
    *("source.clusters=4", "pair.tasks_per_shard=4", "fold=0", "shots=1", "episodes=4"),
    *("train.steps=12", "train.batch=2", "train.log_every=1", "train.checkpoint_every=2", "train.max_failures=9"),
    *("cluster.workers=2", "cluster.train_workers=2", f"tracking.uri={MLFLOW}"),
)
#: A round is given up after these seconds or after so many times what one takes; seconds before a command is run again.
_LIMIT, _TIMES, _PAUSE = 1800.0, 5, 2.0
_TABLE = "{:>5}  {:6}  {:46}  {:>5}  {:>7}  {}"


@dataclass
class Played:
    """How a round went."""

    plan: Round
    times: int = 0
    seconds: float = 0.0
    struck: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Its row of the table; a second fault, and each problem, has a line of its own."""
        first, *others = self.struck or ["nothing"]
        where = "bucket" if self.plan.bucket else "folder"
        said = "; ".join(self.problems) or "equal"
        row = _TABLE.format(self.plan.number, where, first, self.times, f"{self.seconds:.0f}", said)
        return "\n".join([row, *(" " * 15 + other for other in others)])


def play(home: Path, seed: int, numbers: Iterable[int]) -> int:
    """Play the rounds, print their table; the exit status."""
    failed = []
    with _yard(home) as yard:
        game = Game(home, yard)
        print(_TABLE.format("round", "root", "fault at second, how long, in which stage", "times", "seconds", "files"))
        print(game.quiet.row(), flush=True)
        for number in numbers:
            played = game.play(drawn(seed, number))
            print(played.row(), flush=True)
            if played.problems:
                failed.append(number)
                print(f"again: make chaos SEED={seed} FIRST={number} ROUNDS=1", flush=True)
    print(f"{len(failed)} rounds failed: {failed}" if failed else "all rounds ended as the quiet run did")
    return int(bool(failed))


@contextlib.contextmanager
def _yard(home: Path) -> Iterator[Yard]:
    for words in (("/run", "755"), ("/dev/shm", "1777")):  # what is made there is seen by nobody else
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={words[1]}", "chaos", words[0]], check=True)
    os.environ["FSS_CACHE"] = str(home / "copies")
    with Machines(home, LOGIN) as machines, contextlib.ExitStack() as servers:
        objects = servers.enter_context(store(home))
        bucket.make()
        held = database(home)
        if held is None:
            print("no Postgres is installed: MLflow keeps its runs in SQLite and is struck itself", flush=True)
        else:
            servers.enter_context(held)
        tracking = servers.enter_context(mlflow(home, on_postgres=held is not None))
        yield Yard(machines, tracking, held or tracking, objects)


class Game:
    """Rounds on one yard, and the quiet run that they are compared with."""

    def __init__(self, home: Path, yard: Yard):
        self._home, self._yard = home, yard
        self.quiet = Played(Round(-1, bucket=False, faults=()))
        self._usual = 0.0
        """Seconds of the last run that nothing ended: a machine is not always as busy as it was."""
        self._expected = self._run(self.quiet)
        assert not self.quiet.problems, f"the quiet run: {self.quiet.problems}"

    def play(self, plan: Round) -> Played:
        """One round, from nothing; its files are kept if it fails."""
        played = Played(plan)
        found = self._run(played)
        if found is not None:
            played.problems += verdict.differing(self._expected, found)
        if not played.problems:
            shutil.rmtree(self._place(plan))
        return played

    def _place(self, plan: Round) -> Path:
        return self._home / f"round{plan.number}"

    def _run(self, played: Played) -> verdict.Outcome | None:
        """Start the run, and again until it has ended well, while it is struck; None if it does not."""
        place = self._place(played.plan)
        place.mkdir()
        self._yard.machines.wait()
        over, start = threading.Event(), time.monotonic()
        strikes = [
            threading.Thread(target=self._strike, args=(played, fault, start, over)) for fault in played.plan.faults
        ]
        for one in strikes:
            one.start()
        done = self._until_done(played, start + max(_LIMIT, _TIMES * self._usual))
        over.set()
        for one in strikes:
            one.join()
        played.seconds = time.monotonic() - start
        if played.times == 1 or not self._usual:
            self._usual = played.seconds
        return self._judged(played) if done else None

    def _until_done(self, played: Played, end: float) -> bool:
        """Whether it ended well before it is given up."""
        machines, log = self._yard.machines, self._place(played.plan) / "log"
        command = (sys.executable, "-m", "jobs.pipeline", *RUN, *self._where(played.plan))
        try:
            while time.monotonic() < end:
                machines.driver = machines.head.start(*command, log=log)
                played.times += 1
                if machines.driver.wait(max(end - time.monotonic(), 1.0)) == 0:
                    return True
                time.sleep(_PAUSE)
        except subprocess.TimeoutExpired:
            machines.driver.kill()
        finally:
            machines.driver.wait()
            machines.driver = None
        played.problems.append(f"not done in time, started {played.times} times")
        return False

    def _where(self, plan: Round) -> tuple[str, ...]:
        return f"root={self._root(plan)}", f"tracking.experiment=round{plan.number}"

    def _root(self, plan: Round) -> str:
        return bucket.address(f"round{plan.number}") if plan.bucket else str(self._place(plan))

    def _strike(self, played: Played, fault: Fault, start: float, over: threading.Event) -> None:
        """Wait for the fault's moment, and let it happen."""
        over.wait(start + fault.moment * self._usual - time.monotonic())
        at, stage = time.monotonic() - start, self._stage(played.plan)
        try:
            told = strike(fault, self._yard, over)
        except TooLateError:
            told = "(too late)"
        except NotEndedError as error:
            told = ""
            played.problems.append(str(error))
        played.struck.append(f"{at:.0f} {fault} {told}, {fault.seconds:.0f} s, {stage}")

    def _stage(self, plan: Round) -> str:
        """The stage whose folder is the newest, on the head's disk or among its copies of the bucket."""
        run = self._yard.machines.head.copy_of(self._root(plan)) / "tiny"
        stages = [path for path in run.glob("*") if path.name in STAGES]
        return max(stages, key=lambda path: path.stat().st_mtime).name if stages else "start"

    def _judged(self, played: Played) -> verdict.Outcome:
        """What is there in the end; what is wrong with it by itself is added to the problems."""
        place = self._place(played.plan)
        try:
            with (place / "sync").open("w") as told, contextlib.redirect_stdout(told):
                sync.send(load([*RUN, *self._where(played.plan)]))
        except (ValueError, OSError) as error:
            played.problems.append(f"jobs.sync: {error}")
        if played.plan.bucket:
            bucket.fetch(f"round{played.plan.number}", place)
        played.problems += verdict.left_behind(place, self._yard.machines)
        played.problems += verdict.stacks((place / "log").read_text())
        return verdict.outcome(place / "tiny", f"round{played.plan.number}")
