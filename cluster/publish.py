"""Files that are whole or absent: written under a temporary name, synced to disk, renamed."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fss import shards


def write_bytes(path: Path, data: bytes) -> dict[str, Any]:
    """Publish `data` at `path` atomically, replacing what was there; return its bytes and sha256 for a manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return {"bytes": len(data), "sha256": shards.sha256(data)}


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as indented JSON with sorted keys."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """JSON value of `path`."""
    return json.loads(path.read_text())


def parquet(table: pa.Table) -> bytes:
    """`table` as a Parquet file's bytes; equal tables make equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


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

    Raises:
        ValueError: if another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run is writing {folder}; wait for it, stop it, or choose another name= or root="
            ) from error
        yield
