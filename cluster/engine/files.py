"""Published files of a stage: named with their size and sha256, checked whenever they are read."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

from cluster.engine import publish
from cluster.storage import bucket, paths
from fss import shards

_BLOCK = 1 << 20


@functools.lru_cache
def content_hash(path: str) -> str:
    """Hex sha256 of a user's file, by path or fsspec address; read once a process."""
    digest = hashlib.sha256()
    with fsspec.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class File:
    """One published file of a stage: name relative to the stage's folder, samples, bytes and sha256."""

    path: str
    count: int
    bytes: int
    sha256: str


class DamagedFileError(ValueError):
    """A stage's file that is not what the stage wrote, or is gone. It keeps its fields on the way out of a worker.

    `size` and `got` are the bytes and the sha256 that were found, -1 and "" if the file could not be read.
    """

    def __init__(self, folder: Path, file: File, size: int, got: str):
        self.folder, self.file, self.size, self.got = folder, file, size, got
        seen = f"{size} bytes with {got[:12]}" if size >= 0 else "no file"
        super().__init__(
            f"{bucket.address(self.path)} is damaged: expected {file.bytes} bytes with sha256 {file.sha256[:12]}, "
            f"got {seen}; delete it and run its stage again"
        )

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.folder / self.file.path

    def still(self) -> bool:
        """Whether the file is damaged now."""
        try:
            check_file(self.folder, self.file)
        except DamagedFileError:
            return True
        return False

    def __reduce__(self) -> tuple[type[DamagedFileError], tuple[Path, File, int, str]]:
        return type(self), (self.folder, self.file, self.size, self.got)


def write_file(folder: Path, name: str, data: bytes, count: int = 0) -> File:
    """Publish one file of a stage that makes its files itself."""
    return File(name, count, **publish.write_bytes(folder / name, data))


def read_file(folder: Path, file: File) -> bytes:
    """The bytes of a stage's file, checked against its manifest.

    Raises:
        DamagedFileError: if they are not what the stage wrote, or if the file is gone.
    """
    path = folder / file.path
    data = paths.copied(path)
    if data is not None and shards.sha256(data) == file.sha256:
        return data
    try:
        data = paths.read_bytes(path, file.bytes)
    except FileNotFoundError:
        raise DamagedFileError(folder, file, -1, "") from None
    _compare(folder, file, len(data), shards.sha256(data))
    paths.keep(path, data)
    return data


def holds(path: Path, sha256: str) -> bool:
    """Whether a file that somebody may write anew has this sha256; `path` has its bytes then.

    Of a bucket's file the copy is looked at first.
    """
    if path.exists() and _look(path)[1] == sha256:
        return True
    try:
        return paths.stored(path) and _look(paths.fetch(path))[1] == sha256
    except FileNotFoundError:
        return False


def read_array(folder: Path, file: File) -> np.ndarray:
    """The array of a stage's .npy file; raises as `read_file`."""
    values: np.ndarray = np.load(io.BytesIO(read_file(folder, file)), allow_pickle=False)
    return values


def check_file(folder: Path, file: File) -> Path:
    """The path of a stage's file after a look at all its bytes, in constant memory.

    Raises:
        DamagedFileError: if they are not what the stage wrote, or if the file is gone.
    """
    path = folder / file.path
    if paths.stored(path) and path.exists() and _look(path) == (file.bytes, file.sha256):
        return path
    try:
        size, digest = _look(paths.fetch(path))
    except FileNotFoundError:
        raise DamagedFileError(folder, file, -1, "") from None
    _compare(folder, file, size, digest)
    return path


def whole_file(folder: Path, file: File) -> Path:
    """The path of a stage's file for those who read parts of it, each with a checksum of its own.

    Of a bucket's file the copy is looked at as a whole, once a process, for it may be out of date.

    Raises:
        DamagedFileError: as `check_file`.
    """
    path = folder / file.path
    return path if not paths.stored(path) or _checked(folder, file).exists() else check_file(folder, file)


@functools.lru_cache(maxsize=1 << 16)
def _checked(folder: Path, file: File) -> Path:
    return check_file(folder, file)


def _look(path: Path) -> tuple[int, str]:
    """The size and sha256 of a file of this machine."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _compare(folder: Path, file: File, size: int, digest: str) -> None:
    if size != file.bytes or digest != file.sha256:
        raise DamagedFileError(folder, file, size, digest)


def damaged_in(error: object) -> Iterator[DamagedFileError]:
    """The damaged files that an error tells of, itself or by what caused it, in Ray's wrappings too."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, DamagedFileError) and hasattr(one, "file"):
            yield one
            continue
        todo += [one.__cause__, one.__context__, *getattr(one, "damaged", ())]
        todo += [getattr(one, name, None) for name in ("cause", "_base_exc")]  # RayTaskError, Ray Train's
        failures = getattr(one, "worker_failures", None)
        todo += failures.values() if isinstance(failures, dict) else ()


def listing(folder: Path, extensions: Collection[str]) -> str:
    """A hash over names and sizes of the files of a user's folder, at any depth, with these extensions in any case: one
    that is replaced by another of exactly the same size goes unnoticed.
    """
    below = (path for path in folder.rglob("*") if path.suffix.lower() in extensions and path.is_file())
    sizes = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in below)
    return shards.sha256(shards.dumps(sizes))
