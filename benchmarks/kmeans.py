"""Seconds of a k-means iteration: ours in one part and in several, faiss.Kmeans; one worker and two.

    python -m benchmarks.kmeans [--points-file FILE.npy] [--no-workers] [--json FILE]

Iterations: same points (clustered directions of length 1, or rows of a file), same first centroids, same threads, all
sides in turn, medians over the rounds; ours is assignment, float64 sums, their addition and the step, in bfloat16 where
the processor multiplies that, and in float32. Where other work runs on the machine, seconds of CPU are the steadier
measure. The objective is compared after the same number of iterations, and last labels are counted that differ from
those of one part in float32. Workers: `PartialSums` of the stage over files of points, 1 and 2 Ray workers of
one thread in turn, points in memory. `benchmarks.gpu` measures assignment on a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray
import torch

from cluster.config import ClusterConfig
from cluster.engine.pool import Pool
from cluster.engine.stage import write_file
from cluster.kmeans.stage import Chunk, PartialSums
from fss import precision
from fss.clustering import kmeans
from fss.clustering.assign import labels_of


def directions(number: int, dims: int, groups: int) -> np.ndarray:
    """(number, dims) float32 points of length 1 around `groups` random directions."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((groups, dims), dtype=np.float32)
    points = np.empty((number, dims), np.float32)
    for start in range(0, number, 65_536):
        rows = points[start : start + 65_536]
        rows[:] = centres[generator.integers(groups, size=len(rows))]
        rows += generator.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return points


Run: TypeAlias = tuple[float, float, float, np.ndarray | None]
"""Seconds and seconds of CPU of an iteration, the objective before the last step, and the labels then."""


def ours(points: np.ndarray, start: np.ndarray, iterations: int, parts: int, kind: str = "bf16") -> Run:
    """Our k-means; `kind` fp32 on any processor, or bf16 where it has that."""
    able = precision._MULTIPLIES
    precision._MULTIPLIES = able and kind == "bf16"
    try:
        return _ours(points, start, iterations, parts)
    finally:
        precision._MULTIPLIES = able


def _ours(points: np.ndarray, start: np.ndarray, iterations: int, parts: int) -> Run:
    centroids, before, inertia = start, start, 0.0
    begin, cpu = time.perf_counter(), time.process_time()
    kept = [kmeans.Part(part) for part in np.array_split(points, parts)]
    for iteration in range(iterations):
        sums = kmeans.add(part.sums(centroids) for part in kept)
        before = centroids
        centroids, inertia = kmeans.step(sums, centroids, seed=iteration), sums.inertia
    seconds = time.perf_counter() - begin, time.process_time() - cpu
    return seconds[0] / iterations, seconds[1] / iterations, inertia, labels_of(points, before)


def theirs(points: np.ndarray, start: np.ndarray, iterations: int) -> Run:
    """The same of faiss.Kmeans, which uses every point."""
    import faiss

    model = faiss.Kmeans(
        points.shape[1], len(start), niter=iterations, max_points_per_centroid=len(points), min_points_per_centroid=1
    )
    begin, cpu = time.perf_counter(), time.process_time()
    model.train(points, init_centroids=start)
    seconds = time.perf_counter() - begin, time.process_time() - cpu
    return seconds[0] / iterations, seconds[1] / iterations, float(model.obj[-1]), None


def iterations(arguments: argparse.Namespace, points: np.ndarray) -> list[dict[str, Any]]:
    """All sides in turn: median seconds an iteration, median ratio to FAISS within a round, difference in objective."""
    start = points[np.random.default_rng(1).choice(len(points), arguments.clusters, replace=False)]
    sides: dict[str, Callable[[np.ndarray, int], Run]] = {
        "faiss.Kmeans": lambda rows, times: theirs(rows, start, times),
        "ours, 1 part": lambda rows, times: ours(rows, start, times, 1),
        f"ours, {arguments.parts} parts": lambda rows, times: ours(rows, start, times, arguments.parts),
        "ours, 1 part, float32": lambda rows, times: ours(rows, start, times, 1, "fp32"),
    }
    for side in sides.values():  # what is loaded and made at the first call
        side(points[: 8 * len(start)], 1)
    rounds: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rounds[name].append(side(points, arguments.iterations))
    reference, exact = rounds["faiss.Kmeans"], rounds["ours, 1 part, float32"][0][3]
    return [
        {
            "side": name,
            "seconds": statistics.median(run[0] for run in runs),
            "ratio": statistics.median(mine[0] / their[0] for mine, their in zip(runs, reference, strict=True)),
            "CPU seconds": statistics.median(run[1] for run in runs),
            "CPU ratio": statistics.median(mine[1] / their[1] for mine, their in zip(runs, reference, strict=True)),
            "objective": runs[0][2],
            "objective difference": runs[0][2] / reference[0][2] - 1,
            "other labels": "" if runs[0][3] is None else int((runs[0][3] != exact).sum()),
        }
        for name, runs in rounds.items()
    ]


def workers(arguments: argparse.Namespace, points: np.ndarray) -> dict[str, Any]:
    """Speed of two workers over that of one, each of one thread, the same chunks, in turn."""
    centroids, centre = points[: arguments.clusters].copy(), np.zeros(points.shape[1])
    # Places for both pools, which take turns: three processes, of which two at most compute.
    ray.init(address="local", num_cpus=3, include_dashboard=False, logging_level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder, chunks = Path(name), list[Chunk]()
        for number, part in enumerate(np.array_split(points, arguments.parts)):
            buffer = io.BytesIO()
            np.save(buffer, part)
            chunks.append((write_file(folder, f"{number}.npy", buffer.getvalue(), len(part)),))
        with Pool(ClusterConfig(workers=1)) as one, Pool(ClusterConfig(workers=2)) as two:
            function = PartialSums(folder, centre, centroids, memory=4.0)
            seconds: dict[int, list[float]] = {1: [], 2: []}
            for round_ in range(arguments.rounds + 1):
                for size, pool in ((1, one), (2, two)):
                    begin = time.perf_counter()
                    kmeans.add(pool.each(function, chunks))
                    if round_:  # the first one reads the files
                        seconds[size].append(time.perf_counter() - begin)
    ray.shutdown()
    ratios = [single / double for single, double in zip(seconds[1], seconds[2], strict=True)]
    medians = {str(size): statistics.median(times) for size, times in seconds.items()}
    return {"points": len(points), "seconds": medians, "speed_up": statistics.median(ratios)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    for row in rows:
        cells = [value if isinstance(value, str) else f"{value:.4g}" for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500_000)
    parser.add_argument(
        "--points-file", type=Path, help="(N, D) float32 points of length 1, of which the first are taken"
    )
    parser.add_argument("--no-workers", action="store_true", help="measure iterations alone")
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=512)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file for the measurements")
    arguments = parser.parse_args()
    import faiss

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    if arguments.points_file:
        points = np.load(arguments.points_file)[: arguments.points]
    else:
        points = directions(arguments.points, arguments.dims, 2 * arguments.clusters)
    figures: dict[str, Any] = {"iteration": iterations(arguments, points)}
    print(table(figures["iteration"]), flush=True)
    if not arguments.no_workers:
        figures["workers"] = workers(arguments, points)
        seconds = {f"{size} [s]": value for size, value in figures["workers"]["seconds"].items()}
        print("\n" + table([{"side": "workers", **seconds, "1 / 2": figures["workers"]["speed_up"]}]))
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"settings": vars(arguments), **figures}, indent=2, default=str) + "\n"
        )


if __name__ == "__main__":
    main()
