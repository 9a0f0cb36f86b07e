"""What is installed is the library alone, and it runs a model without what only making one needs."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.fss.segmenter.test_segmenter import write
from tests.places import ROOT

INFERENCE = {"numpy", "pillow", "safetensors", "scikit-image", "tifffile", "torch", "torchvision"}

#: Imports all of `fss` from the wheel where nothing but its dependencies can be, and answers with exported models.
RUN = """
import importlib, pkgutil, sys
from pathlib import Path

BLOCKED = {"cluster", "jobs", "ray", "deepspeed", "mlflow", "hydra", "omegaconf", "pyarrow", "webdataset",
           "faiss", "matplotlib", "pycocotools", "psutil", "timm", "huggingface_hub"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not part of inference")

sys.meta_path.insert(0, Blocked())
import fss
assert Path(fss.__file__).parent.parent == Path.cwd(), fss.__file__
for module in pkgutil.walk_packages(fss.__path__, "fss."):
    importlib.import_module(module.name)

import numpy
from PIL import Image
from fss.segmenter import Segmenter, find
image = Image.fromarray(numpy.arange(64 * 64 * 3, dtype=numpy.uint8).reshape(64, 64, 3))
thing = numpy.zeros((64, 64), numpy.uint8)
thing[16:48, 16:48] = 1
for folder in sys.argv[1:]:
    mask = Segmenter.load(find(folder), "cpu").segment(image, supports=[image], masks=[thing])
    print(folder, mask.shape, mask.dtype)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git would hand out: nothing is written into the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for name in ("fss", "cluster", "jobs", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        out,
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl")
    return made


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))


def required(wheel: Path, extra: str | None = None) -> set[str]:
    """Names of what the wheel requires, by itself or with one extra."""
    lines = [line.partition(";") for line in metadata(wheel).get_all("Requires-Dist")]
    wanted = [line for line, _, mark in lines if (f'extra == "{extra}"' in mark if extra else not mark)]
    return {re.match(r"[\w-]+", line)[0].lower() for line in wanted}


def test_the_wheel_holds_the_library_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "fss").rglob("*.py")}
    assert set(names) == here


def test_the_wheel_asks_for_what_inference_needs_and_extras_for_the_rest(wheel):
    assert required(wheel) == INFERENCE
    assert {"ray", "deepspeed", "mlflow", "hydra-core", "webdataset", "scipy"} <= required(wheel, "cluster")
    assert required(wheel, "timm") == {"timm"}
    assert required(wheel, "cpu") == {"faiss-cpu"}
    assert required(wheel, "gpu") == {"faiss-gpu"}
    assert "pytest" in required(wheel, "dev")


def test_every_extra_is_in_the_lock(wheel):
    """`make` installs the lock alone: what a checkout needs must be in it."""
    lock = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    extras = ("cluster", "cpu", "export", "dev", "serve", "timm")
    wanted = required(wheel).union(*(required(wheel, extra) for extra in extras))
    normal = {re.sub(r"[-_.]+", "-", name) for name in lock}
    assert {name for name in wanted if re.sub(r"[-_.]+", "-", name) not in normal} == set()


def test_the_installed_library_answers_with_nothing_else_installed(wheel, tmp_path):
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    folders = [tmp_path / name for name in ("umtfss", "mining")]
    for folder in folders:
        write(folder, folder.name)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", RUN, *map(str, folders)]
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{folder} (64, 64) uint8" for folder in folders]
