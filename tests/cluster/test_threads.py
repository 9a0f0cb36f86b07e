"""The number of a worker's CPUs changes no byte: sums are computed on one thread each, images beside each other.

Each run is one process that finds as many threads as a machine with that many cores would offer it.
"""

import shutil

import pytest
import torch

from cluster.engine import check
from cluster.engine.run import Run
from cluster.engine.workers import Worker
from cluster.stages import STAGES
from tests.cluster.here import Here
from tests.places import SHARED

WEIGHTS = SHARED / "weights/mobilenet_v2_imagenet1k_fp16.pth"
REAL = SHARED / "data/voc2012"
MADE = ("sample", "kmeans", "label", "evaluate")


@pytest.fixture(autouse=True)
def _threads_of_others(monkeypatch):
    """Put back after the test; and no machine is too small for four."""
    import faiss

    monkeypatch.setattr(check, "machines", lambda config, training: [])
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


class OneWorker(Here):
    """A pool of one worker: this process."""

    def __init__(self, threads):
        self.worker = Worker(threads, None)

    def map(self, function, units):
        yield from ((index, self.worker.run(function, unit)) for index, unit in enumerate(units))

    def each(self, function, units):
        yield from (self.worker.run(function, unit) for unit in units)


def files(config, threads):
    """The files of each stage, made by a worker of that many CPUs."""
    import faiss

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    run = Run(config, STAGES)
    run.__dict__["pool"] = OneWorker(threads)
    return {stage: run.ensure(stage).files for stage in ("label", "evaluate") for stage in run.order(stage)}


def made(configure, folder, options):
    """What 1, 2 and 4 CPUs make, the last without stored features."""
    for threads, more in ((1, ()), (2, ()), (4, ("cluster.features_gib=0",))):
        config = configure(folder / f"{threads}{len(more)}", f"cluster.cpus_per_worker={threads}", *options, *more)
        yield files(config, threads)


def assert_equal(found):
    first, *others = found
    assert {*MADE} <= {*first}
    for other in others:
        for stage in first:
            assert other[stage] == first[stage], stage


SMALL = ("backbone=mobilenet_v2", "model=prototype", "baselines=smoothed", "shots=[1]")


RANDOM = ("backbone.weights=random", "backbone.size=129", "backbone.stride=16", "fold=all", "episodes=6")


def test_segments_under_random_weights(configure, tmp_path):
    assert_equal(list(made(configure, tmp_path, (*SMALL, *RANDOM, "dataset.min_area=100"))))


@pytest.mark.slow
def test_pixels_under_random_weights(configure, tmp_path):
    pixels = ("source.unit=pixels", "source.points_per_image=50", "dataset.min_area=100")
    assert_equal(list(made(configure, tmp_path, (*SMALL, *RANDOM, *pixels))))


@pytest.mark.slow
def test_real_photos(configure, tmp_path):
    if not WEIGHTS.is_file() or not REAL.is_dir():
        pytest.skip(f"no {WEIGHTS} or no {REAL}")
    corpus = tmp_path / "photos"
    corpus.mkdir()
    for path in sorted((REAL / "JPEGImages").iterdir())[:16]:
        shutil.copy(path, corpus)
    options = (*SMALL, f"backbone.weights={WEIGHTS}", "backbone.size=257", f"corpus.root={corpus}")
    options += ("dataset=pascal5i", f"dataset.root={REAL}", "source.clusters=30", "fold=0", "episodes=12")
    assert_equal(list(made(configure, tmp_path, options)))
