"""Files that are whole or absent: written under a temporary name, synced to disk, renamed.

A file that belongs into a bucket is put there, whole, before its copy on this machine gets its name. The copy is not
synced: it may go at any time.

A writer that was believed dead and publishes late does no harm: it renames a whole file of the same bytes over the one
that is there.

`FSS_FAILPOINT="POINT NAME [MARKER]"` kills the process (SIGKILL) when it publishes a file whose name fits the pattern
NAME and gets to POINT: `half_written`, `before_rename` or `after_rename`. With MARKER, a path, only the first process
that gets there dies, which creates that file. For tests of what a kill leaves behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import io
import json
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import bucket, lease, paths
from fss import seals, shards

logger = logging.getLogger(__name__)

#: The file by which a folder has one writer.
LOCK = ".lock"
#: Characters of a file's name in that of its scratch file; each takes up to four bytes.
_BEGINNING = 32


def write_bytes(path: Path, data: bytes) -> dict[str, Any]:
    """Publish `data` at `path` atomically, replacing what was there; return its bytes and sha256 for a manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = paths.stored(path)
    temporary = _scratch(path)
    try:
        with temporary.open("wb") as file:
            half = len(data) // 2
            file.write(memoryview(data)[:half])
            _failpoint("half_written", path.name)
            file.write(memoryview(data)[half:])
            file.flush()
            if not stored:
                os.fsync(file.fileno())
        _failpoint("before_rename", path.name)
        paths.send(path, data)
        temporary.replace(path)
        _failpoint("after_rename", path.name)
    finally:
        temporary.unlink(missing_ok=True)
    if not stored:
        _sync_folder(path.parent)
    return {"bytes": len(data), "sha256": shards.sha256(data)}


def _scratch(path: Path) -> Path:
    """A name beside `path` of this process alone; of a long name only the beginning, as file systems bound names."""
    return path.with_name(f".{path.name[:_BEGINNING]}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.tmp")


def write_each(files: Mapping[Path, bytes]) -> list[dict[str, Any]]:
    """What `write_bytes` makes of each, in order; a bucket takes many at a time."""
    each = bucket.each if any(map(paths.stored, files)) else map
    return list(each(lambda one: write_bytes(*one), files.items()))


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as indented JSON with sorted keys."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """JSON value of `path`."""
    return json.loads(paths.read_bytes(path))


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Publish `value` as JSON that carries the sha256 of the rest, so that `read_sealed` notices any change of it."""
    write_json(path, seals.sealed(value))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None if there is no such file, or if it is damaged, which is logged."""
    return next(read_each_sealed([path]))


def read_each_sealed(files: Iterable[Path]) -> Iterator[dict[str, Any] | None]:
    """What `read_sealed` reads of each file, in order."""
    wanted = list(files)
    for path, data in zip(wanted, paths.read_each(wanted), strict=True):
        value = None if data is None else seals.unsealed(data)
        if data is not None and value is None:
            logger.warning(
                "%s is damaged: its content does not have the sha256 that it names; going on without it", path
            )
        yield value


def sweep(folder: Path) -> None:
    """Remove what killed writers left half-written below `folder`, which only its one writer may do."""
    for path in folder.rglob(".*.tmp"):
        logger.debug("%s was left by a process that was killed; removed", path)
        path.unlink(missing_ok=True)


def parquet(table: pa.Table) -> bytes:
    """`table` as a Parquet file's bytes; equal tables make equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def npy(values: np.ndarray) -> bytes:
    """An array as the bytes of an .npy file, which `cluster.engine.files.read_array` reads."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _failpoint(point: str, name: str) -> None:
    chosen = os.environ.get("FSS_FAILPOINT")
    if not chosen:
        return
    where, pattern, *marker = chosen.split(" ", 2)
    if where != point or not fnmatch.fnmatchcase(name, pattern):
        return
    if marker:
        try:
            Path(marker[0]).touch(exist_ok=False)
        except FileExistsError:  # another process died here, or this one's predecessor
            return
    os.kill(os.getpid(), signal.SIGKILL)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; file systems that cannot sync a folder do it on their own."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the kernel gives it back when the process dies, however it dies.

    The lock is flock's: it holds between processes of one machine, and between machines where the file system takes
    it to the server (NFSv4, Lustre mounted with -o flock, CephFS). Where it does not, two drivers on two machines can
    write one folder. They waste work, and do no harm: both publish whole files of the same bytes.

    Between the machines of a bucket the lock is an object (`cluster.storage.lease`), besides.

    Raises:
        ValueError: if another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, lock = bucket.key(folder), folder / LOCK
    with contextlib.ExitStack() as locks:
        try:
            fcntl.flock(locks.enter_context(lock.open("a+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if name is not None:
                locks.enter_context(lease.held(f"{name}/{LOCK}", lock))
        except (BlockingIOError, lease.HeldError) as error:
            raise ValueError(
                f"another run is writing {bucket.address(folder)}; wait for it, stop it, or choose another name= or "
                "root="
            ) from error
        yield
