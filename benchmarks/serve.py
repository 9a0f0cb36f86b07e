"""What serving costs: requests to `jobs.serve` beside the bare `Segmenter` that it runs, in ratios and milliseconds.

    python -m benchmarks.serve --model MODEL --images FOLDER [--number 32] [--rounds 7] [--json FILE]

Both compute on one thread, on the same image files, with one support; the server is on this machine. Each round asks
the segmenter for all images, then the server one image a request, then the server 16 images a request, so that other
work on the machine meets all three alike. Overhead is the median over rounds of the time of a round over that of the
segmenter; the server reads the upload, encodes masks as PNG and as COCO's runs, and sends them on top.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import requests
import torch

from cluster.config.serve import ServeConfig
from cluster.web.deployment import running
from fss.imaging import images
from fss.segmenter import Segmenter, find
from fss.segmenter.thing import Thing

_BATCH = 16


def bare(thing: Thing, files: Sequence[bytes]) -> None:
    """The masks of the segmenter."""
    for answer in thing.stream(files):
        answer.mask()


def served(session: requests.Session, page: str, thing: str, files: Sequence[bytes], together: int) -> None:
    """The answers of the server, for so many images a request."""
    for start in range(0, len(files), together):
        some = [("images", (f"{place}.jpg", data)) for place, data in enumerate(files[start : start + together])]
        session.post(f"{page}/segment", data={"thing": thing}, files=some, timeout=600).raise_for_status()


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def drawn(file: bytes) -> np.ndarray:
    """A mask of the middle of an image."""
    width, height = images.upright_size(file)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    return mask


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--number", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = images.EXTENSIONS
    paths = sorted(path for path in given.images.iterdir() if path.suffix.lower() in known)[: given.number + 1]
    support, *files = (path.read_bytes() for path in paths)
    mask = drawn(support)
    thing = Segmenter.load(find(given.model), "cpu").prepare([support], [mask])
    with running(ServeConfig(model=given.model, port=given.port)) as page, requests.Session() as session:
        shown = {"image": support, "mask": images.encode_png(mask)}
        name = session.post(f"{page}/supports", files=shown, timeout=600).json()["thing"]
        ways: dict[str, Callable[[], None]] = {
            "segmenter": lambda: bare(thing, files),
            "1 image a request": lambda: served(session, page, name, files, 1),
            f"{_BATCH} images a request": lambda: served(session, page, name, files, _BATCH),
        }
        for work in ways.values():  # the first time of each is no time
            work()
        times = {way: [seconds(work) for _ in range(1)] for way, work in ways.items()}
        for _ in range(given.rounds - 1):
            for way, work in ways.items():
                times[way].append(seconds(work))
    figures = {}
    for way, some in times.items():
        ratios = [one / alone for one, alone in zip(some, times["segmenter"], strict=True)]
        more = [1000 * (one - alone) / len(files) for one, alone in zip(some, times["segmenter"], strict=True)]
        figures[way] = {
            "ms_an_image": 1000 * statistics.median(some) / len(files),
            "ratio": statistics.median(ratios),
            "ms_more_an_image": statistics.median(more),
        }
        print(way, {key: round(value, 3) for key, value in figures[way].items()}, flush=True)
    if given.json:
        given.json.write_text(json.dumps({"images": len(files), "times": times, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
