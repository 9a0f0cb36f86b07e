"""What serving costs: requests to `jobs.serve` beside the bare `Segmenter` that it runs, in ratios and milliseconds.

    THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS=1 python -m benchmarks.serve --model MODEL --images FOLDER [--number 32]
        [--rounds 7] [--port 8000] [--json FILE]

Both compute on one thread, in the environment of workers, on the same image files, with one support; the server is on
this machine. Each round asks the segmenter for the images, one a call and all in one, then the server for 1, 4 (as the
page does) and 16 of them a request, so that other work on the machine meets all alike. The server reads uploads,
encodes masks as PNG and as COCO's runs, and sends them on top. Figures are medians over rounds of what the server takes
beside the segmenter in the same round: a request of one image beside a call of one, whose reading nothing hides, the
others beside the call of all. The wall clock counts, and the CPU time of the server's processes (its door and replica),
which other work on the machine hardly changes. A request that computes nothing, GET /health, goes the same way.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import requests
import torch

from fss.imaging import images
from fss.segmenter import Segmenter, find
from fss.segmenter.thing import Thing

#: Images a request.
_TOGETHER = (1, 4, 16)
_ALONE, _BARE = "segmenter, a call an image", "segmenter, one call"


def bare(thing: Thing, files: Sequence[bytes]) -> None:
    """The masks of the segmenter, which reads the next image while it computes."""
    for answer in thing.stream(files):
        answer.mask()


def alone(thing: Thing, files: Sequence[bytes]) -> None:
    """The same, one call an image."""
    for file in files:
        thing.segment(file)


def served(session: requests.Session, page: str, thing: str, files: Sequence[bytes], together: int) -> None:
    """The answers of the server, for so many images a request."""
    for start in range(0, len(files), together):
        some = [("images", (f"{place}.jpg", data)) for place, data in enumerate(files[start : start + together])]
        session.post(f"{page}/segment", data={"thing": thing}, files=some, timeout=600).raise_for_status()


class Server:
    """`jobs.serve` as a process of its own; `page` is where it answers."""

    def __init__(self, model: str, port: int):
        command = [sys.executable, "-m", "jobs.serve", f"model={model}", f"port={port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        said = [self.process.stdout.readline() for _ in range(2)]
        if self.process.poll() is not None or not said[1]:
            raise RuntimeError("the server did not start, see above")
        self.page = said[1].rpartition(" ")[2].strip()
        door = psutil.Process(self.process.pid)
        family = door.children(recursive=True)
        self.parts = [door, *(one for one in family if "".join(one.cmdline()).startswith("ray::ServeReplica"))]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


class Clock:
    """Seconds of the wall and of the CPU, of this process and of the server's."""

    def __init__(self, server: Server):
        self.server = server.parts

    def times(self) -> np.ndarray:
        """The wall clock, CPU of this process, CPU of the server."""
        used = [one.cpu_times() for one in self.server]
        return np.array([time.perf_counter(), time.process_time(), sum(one.user + one.system for one in used)])

    def seconds(self, work: Callable[[], None]) -> np.ndarray:
        """What some work takes of each."""
        start = self.times()
        work()
        return self.times() - start


def drawn(file: bytes) -> np.ndarray:
    """A mask of the middle of an image."""
    width, height = images.upright_size(file)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    return mask


def told(some: np.ndarray, beside: np.ndarray, number: int) -> dict[str, float]:
    """Of (rounds, 3) seconds for so many images, of the server or the segmenter itself, beside the segmenter's."""
    cpu = some[:, 1] if some is beside else some[:, 2]
    return {
        "ms_an_image": 1000 * float(np.median(some[:, 0])) / number,
        "more_ms": 1000 * float(np.median(some[:, 0] - beside[:, 0])) / number,
        "wall_ratio": float(np.median(some[:, 0] / beside[:, 0])),
        "cpu_ms_an_image": 1000 * float(np.median(cpu)) / number,
        "cpu_ratio": float(np.median(cpu / beside[:, 1])),
    }


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
    with Server(given.model, given.port) as server, requests.Session() as session:
        page = server.page
        shown = {"image": support, "mask": images.encode_png(mask)}
        name = session.post(f"{page}/supports", files=shown, timeout=600).json()["thing"]
        ways: dict[str, Callable[[], None]] = {
            _ALONE: lambda: alone(thing, files),
            _BARE: lambda: bare(thing, files),
        }
        beside = {way: way for way in ways}
        for number in _TOGETHER:
            way = f"images a request: {number}"
            ways[way] = functools.partial(served, session, page, name, files, number)
            beside[way] = _ALONE if number == 1 else _BARE
        clock = Clock(server)
        for work in ways.values():  # the first time of each is no time
            work()
        times = {way: np.zeros((given.rounds, 3)) for way in ways}
        for turn in range(given.rounds):
            for way, work in ways.items():
                times[way][turn] = clock.seconds(work)
        idle = [
            clock.seconds(lambda: session.get(f"{page}/health", timeout=600).raise_for_status()) for _ in range(200)
        ]
    figures = {way: told(some, times[beside[way]], len(files)) for way, some in times.items()}
    figures["GET /health"] = {"ms": 1000 * float(np.median(np.array(idle)[:, 0]))}
    for way, numbers in figures.items():
        print(way, {key: round(value, 3) for key, value in numbers.items()}, flush=True)
    if given.json:
        given.json.write_text(json.dumps({"images": len(files), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
