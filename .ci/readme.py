"""Do what README.md says, word by word, as a newcomer's shell would: nothing is activated, nothing is on PATH.

    .venv/bin/python .ci/readme.py

The commands are the README's own, from its code blocks. The demo is run from nothing: what it prints must lie in the
ranges of the README's table, and a second run must find everything done. `make ui` must answer. Then the commands for
own photos are run in a folder of their own on drawn scenes, and the Python example after them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script's own folder comes first, and that is .ci

from tests.docs.pages import Block, blocks, cells, commands  # noqa: E402

SYSTEM = "/usr/local/bin:/usr/bin:/bin"
#: Points by which a figure may lie outside of its range: rounding differs from one processor to the next.
MARGIN = 3.0
#: What makes the training on own photos short. It comes behind the README's own keys.
SHORT = "train.steps=4 train.batch=4 train.warmup=1 train.candidates=1 train.holdout=4"
PHOTOS = 24
Figures = dict[tuple[str, str], float]


def main() -> None:
    """Everything in turn; the first thing that is not as the README says ends it with a message."""
    page = blocks(ROOT / "README.md")
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        home = Path(folder)
        check_demo(page, home)
        check_own_photos(page, home)
    print("README: everything is as it says")


def check_demo(page: list[Block], home: Path) -> None:
    """The demo, twice, and the page of its runs."""
    demo, ui = [line for block in section(page, "Try it", "sh") for line in commands(block)]
    expected = ranges(page)
    found = printed(shell(demo, ROOT, home))
    for key, (low, high) in expected.items():
        if key not in found:
            sys.exit(f"README: expected the demo to print {' '.join(key)}, got {sorted(found)}")
        if not low - MARGIN <= found[key] <= high + MARGIN:
            sys.exit(f"README: {' '.join(key)}: expected {low:g} to {high:g}, got {found[key]}")
    before = manifests()
    again = printed(shell(demo, ROOT, home))
    if not before or manifests() != before or again != found:
        sys.exit("README: expected a second demo to find everything done, it made a stage again")
    address = re.search(r"http://[\d.:]+", section(page, "Try it", "prose")[0].text)
    with background(ui, ROOT, home) as process:
        wait_for(address[0] if address else "", process)


def check_own_photos(page: list[Block], home: Path) -> None:
    """The three commands on drawn scenes, in a folder that looks like the checkout, and the Python example."""
    work, scenes = home / "checkout", home / "scenes"
    work.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("runs", ".git"):
            (work / path.name).symlink_to(path)
    image, mask = draw(scenes)
    put_weights(home)
    own = {"PHOTOS": str(scenes / "JPEGImages"), "IMAGE": str(image), "MASK": str(mask)}
    for line in [line for block in section(page, "Your own photos", "sh") for line in commands(block)]:
        filled = re.sub(r"\b(PHOTOS|IMAGE|MASK)\b", lambda word: own[word[0]], line)
        where = ROOT if line.startswith("make ") else work  # what make installs is the checkout's
        shell(f"{filled} {SHORT}" if "jobs.pipeline" in line else filled, where, home)
    written = sorted((work / "masks").glob("*.png"))
    if len(written) != PHOTOS:
        sys.exit(f"README: expected {PHOTOS} masks of own photos, got {len(written)}")
    for source, name in ((image, "a.jpg"), (mask, "a.png"), (image, "b.jpg")):
        shutil.copyfile(source, work / name)
    (example,) = section(page, "In Python", "python")
    (work / "example.py").write_text(example.text)
    shell(".venv/bin/python example.py", work, home)


def section(page: list[Block], heading: str, kind: str) -> list[Block]:
    """The blocks below a heading that are of a kind, or code of a language."""
    inside = False
    found = []
    for block in page:
        if block.kind == "heading":
            inside = block.text.lstrip("# ") == heading
        elif inside and kind in (block.kind, block.language):
            found.append(block)
    return found


def ranges(page: list[Block]) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, figure) to its range, of the README's table of the demo."""
    table = section(page, "Try it", "table")[0]
    head, _, *rows = [cells(line.text) for line in table.lines]
    found = {}
    for model, *values in rows:
        for figure, value in zip(head[1:], values, strict=True):
            low, high = value.split(" to ")
            found[model, figure] = (float(low), float(high))
    return found


def printed(output: str) -> Figures:
    """(model, figure) to the mean, of the tables that a run prints: a mean stands before its interval."""
    found: Figures = {}
    figures: list[str] = []
    for line in output.splitlines():
        figures = re.findall(r"\d+-shot [\w-]+", line) or figures
        means = re.findall(r"([\d.]+)(?: ± [\d.]+)? \[", line)
        if figures and len(means) == len(figures):
            model = re.split(r"\s{2,}", line)[0]
            found |= {(model, figure): float(mean) for figure, mean in zip(figures, means, strict=True)}
    return found


def manifests() -> Mapping[Path, int]:
    """When each stage of the demo was finished."""
    return {path: path.stat().st_mtime_ns for path in (ROOT / "runs" / "demo").glob("*/*/manifest.json")}


def environment(home: Path) -> dict[str, str]:
    """All that a command finds in its environment."""
    # Tests may run beside this. Workers take what those leave: at Ray's own niceness of 15 that may be nothing at all,
    # at 0 the daemons of tests that wait for a Ray would not start in time. Its dashboard may take more than a minute.
    rays = {"RAY_worker_niceness": "5", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300"}
    return {"HOME": str(home), "PATH": SYSTEM, **rays}


def shell(command: str, where: Path, home: Path) -> str:
    """Run a command line, show what it prints, and return that; its failure ends this program."""
    print(f"$ {command}", flush=True)
    lines = []
    start = ["/bin/sh", "-c", command]
    with subprocess.Popen(start, cwd=where, env=environment(home), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"README: expected {command!r} to work, it ended with status {process.returncode}")
    return "".join(lines)


@contextmanager
def background(command: str, where: Path, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until it is not needed any more, with all that it started."""
    print(f"$ {command} &", flush=True)
    start = ["/bin/sh", "-c", command]
    process = subprocess.Popen(start, cwd=where, env=environment(home), start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], tries: int = 240) -> None:
    """Until a page answers; a server that ends, or never answers, ends this program."""
    for _ in range(tries):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                print(f"{address}: {answer.status}", flush=True)
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.5)
    sys.exit(f"README: expected make ui to answer on {address}, it did not")


def draw(folder: Path) -> tuple[Path, Path]:
    """Scenes instead of a user's photos; the first with a mask of one thing in it: 0 and 255."""
    import numpy as np
    from PIL import Image

    from fss.scenes import scene

    scene.write(folder, PHOTOS, seed=1, size=128)
    first = folder / "SegmentationClass" / "000000.png"
    labels = np.asarray(Image.open(first))
    thing = np.bincount(labels[(labels > 0) & (labels < 255)]).argmax()
    mask = folder / "mask.png"
    Image.fromarray(((labels == thing) * 255).astype(np.uint8)).save(mask)
    return folder / "JPEGImages" / "000000.jpg", mask


def put_weights(home: Path) -> None:
    """Weights where torchvision looks before it downloads, so that no network is needed: the shared ones, or random."""
    import torch
    import torchvision

    from tests.places import SHARED

    name = Path(torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url).name
    place = home / ".cache" / "torch" / "hub" / "checkpoints" / name
    place.parent.mkdir(parents=True)
    shared = SHARED / "weights" / "mobilenet_v2_imagenet1k_fp16.pth"
    if shared.is_file():
        shutil.copyfile(shared, place)
    else:
        torch.save(torchvision.models.mobilenet_v2().state_dict(), place)


if __name__ == "__main__":
    main()
