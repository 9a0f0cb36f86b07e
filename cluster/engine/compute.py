"""Compute classes: what of a machine may shape the last bits of what it computes, and which may share a stage.

Machines of one class make the same bytes of the same unit. Features of others differ in their last bits, so label maps
may. So a stage is made on one class; what has made it lies in its folder:

.made_on/class-<digest>.json                   a compute class, written before anything that a machine of it made
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cluster.engine import publish
from cluster.storage import bucket, paths
from fss import shards

logger = logging.getLogger(__name__)

ComputeClass: TypeAlias = Mapping[str, str]
"""Words by name: `processor`, with the GPU if there is one, and the versions of the libraries that compute."""

_LIBRARIES = (
    "torch",
    "torchvision",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "scipy",
    "scikit-image",
    "pillow",
    "webdataset",
)
#: Instructions beyond those of torch's name for a processor by which oneDNN, BLAS and our own code choose kernels.
_INSTRUCTIONS = ("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16", "i8mm", "sve_bf16", "sme")


@functools.cache
def here() -> ComputeClass:
    """The compute class of this process."""
    return {"python": platform.python_version(), **_versions(), "processor": _processor()}


def digest(one: ComputeClass) -> str:
    """12 hex digits over a compute class."""
    return shards.sha256(shards.dumps(dict(one)))[:12]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is not the same in both, in words.

    >>> difference({"torch": "2.14.1"}, {"torch": "2.15.0", "python": "3.12.1"})
    'torch (2.14.1, now 2.15.0), python (none, now 3.12.1)'
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} ({before.get(name, 'none')}, now {now.get(name, 'none')})" for name in names)


def words(classes: Sequence[ComputeClass]) -> list[str]:
    """Each compute class by what is not the same in all of them.

    >>> words([{"torch": "2.14.1", "processor": "AVX2"}, {"torch": "2.14.1", "processor": "AVX512"}])
    ['processor AVX2', 'processor AVX512']
    """
    names = dict.fromkeys(name for one in classes for name in one)
    differing = [name for name in names if len({one.get(name) for one in classes}) > 1] or ["processor"]
    return [", ".join(f"{name} {one.get(name, 'none')}" for name in differing) for one in classes]


def distinct(classes: Iterable[ComputeClass]) -> tuple[ComputeClass, ...]:
    """Each of them once."""
    return tuple({digest(one): one for one in classes}.values())


def note(folder: Path, one: ComputeClass) -> None:
    """Say in a stage's folder that machines of this class make it; any process may, and twice."""
    publish.write_sealed(_file(folder, one), dict(one))


def forget(folder: Path, one: ComputeClass) -> None:
    """Take back what `note` said: nothing of it is left."""
    paths.remove(_file(folder, one))


def noted(folder: Path) -> tuple[ComputeClass, ...]:
    """The compute classes that have made what is in a stage's folder."""
    found = publish.read_each_sealed(paths.matching(folder, ".made_on/*.json"))
    return tuple(one for one in found if one is not None)


def _file(folder: Path, one: ComputeClass) -> Path:
    return folder / ".made_on" / f"class-{digest(one)}.json"


class Makers:
    """The compute classes whose machines may make what goes into a stage's folder.

    They are those that have begun it; where nothing is begun, that of most workers; with `mixed`, all. With `repair`
    there may be others if none of those is there: bytes that come out different will be noticed.
    """

    def __init__(self, folder: Path, mixed: bool = False, repair: bool = False):
        self.folder, self.mixed, self.repair = folder, mixed, repair
        self.classes = noted(folder)
        self._told = distinct(self.classes)

    def choose(self, arrived: Sequence[ComputeClass]) -> None:
        """Settle, if nobody has, which of the classes of these workers make the stage; a line says so if not all do."""
        if self.mixed:
            for one in arrived:
                self._admit(one)
        elif not self.classes and arrived:
            numbers = Counter(map(digest, arrived))
            self._admit(max(arrived, key=lambda one: (numbers[digest(one)], digest(one))))
        self._tell(arrived)

    def give_in(self, arrived: Sequence[ComputeClass]) -> None:
        """Take another class than those that have begun the stage, none of whose machines is there, to repair it.

        Raises:
            ValueError: if nothing is repaired: the new files would not be what the old ones go with.
        """
        if not self.repair:
            *begun, now = words([*self.classes, arrived[0]])
            raise ValueError(
                f"{self.folder.parent.name}: expected a machine of the compute class that began it "
                f"({' or '.join(begun)}), got others ({now}); add one, set cluster.mixed=true to go on with what is "
                f"there, or delete {bucket.address(self.folder)}"
            )
        self._admit(arrived[0])

    def admits(self, one: ComputeClass) -> bool:
        """Whether workers of this class may make the stage."""
        return one in self.classes

    def _admit(self, one: ComputeClass) -> None:
        if one not in self.classes:
            note(self.folder, one)
            self.classes += (one,)

    def _tell(self, arrived: Sequence[ComputeClass]) -> None:
        """Say, once for each class, that there are several, and which of them work."""
        seen = distinct((*self.classes, *self._told, *arrived))
        if len(seen) == len(self._told) or len(seen) == 1:
            return
        self._told, told, number = seen, words(seen), len(self.classes)
        remedy = "; set cluster.mixed=true to use all" if told[number:] else ""
        logger.warning(
            "cluster: machines of %d compute classes, whose last bits may differ; %s is made on %s%s%s",
            len(seen), self.folder.parent.name, " and ".join(told[:number]),
            "".join(f", not on {one}" for one in told[number:]), remedy,
        )  # fmt: skip


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # of FAISS there is one of two
            continue
    return versions


def _processor() -> str:
    """What kernels are chosen by: maker, torch's instruction set and others, what BLAS sees, the GPU."""
    import threadpoolctl
    import torch

    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    maker = str(able.get("cpu_name", "")).split()[:1]
    beyond = [name for name in _INSTRUCTIONS if able.get(name)]
    blas = [str(one.get("architecture")) for one in threadpoolctl.threadpool_info() if "numpy" in one["filepath"]]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return " ".join([platform.machine(), *maker, torch.backends.cpu.get_cpu_capability(), *beyond, *blas, *gpu])
