"""A training that notes what it does and comes to grief when it is told to, and what it leaves."""

import dataclasses
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from cluster.engine.files import DamagedFileError, File
from cluster.tracking.journal import read_events
from cluster.train import stage as train
from cluster.train.recipe import MetaRecipe


@dataclass
class Troubled(MetaRecipe):
    """Notes which views of which images each rank gets, and fails once, before batch `at`, on the last rank."""

    notes: Path = Path()
    at: int = -1
    how: str = ""

    def batches(self, start, stop, rank, world):
        for number, batch in enumerate(super().batches(start, stop, rank, world), start):
            if number == self.at and rank == world - 1 and not (self.notes / "failed").exists():
                (self.notes / "failed").touch()
                if self.how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise DamagedFileError(self.notes, File("tasks-000000.tar", 1, 3, "ab" * 32), 2, "cd" * 32)
            yield batch

    def _load(self, files, start, stop, rank, world, size, views):
        for number, batch in enumerate(super()._load(files, start, stop, rank, world, size, views), start):
            if files is self.train:
                rows = [[(key, str(view)) for key, view in row] for row in batch.images]
                with (self.notes / f"rank{rank}.jsonl").open("a") as file:
                    file.write(json.dumps([number, rows]) + "\n")
            yield batch


def troubled_job(tiny_run, folder, **trouble):
    """The tiny run's job in another folder, with a recipe that notes what it does."""
    job = train.job(tiny_run.work("train"))
    values = {field.name: getattr(job.recipe, field.name) for field in dataclasses.fields(MetaRecipe)}
    recipe = Troubled(**values, notes=folder, **trouble)
    return dataclasses.replace(job, recipe=recipe, folder=folder / "train", tracking=folder / "tracking")


def noted(folder, rank):
    """(batch number, images) in the order of loading."""
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]


def kept(folder):
    """The candidates' files below a stage's folder, by name; halves that a kill left are the stage's to clear away."""
    paths = [path for path in (folder / "candidates").rglob("*") if path.is_file() and path.suffix != ".tmp"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def metrics(folder, job, key):
    """Step -> value, the first one where a step was done twice."""
    events, _ = read_events(folder / f"{job.journal}.jsonl")
    return {e["step"]: e["values"][key] for e in events if e["kind"] == "metrics" and key in e["values"]}
