"""Tables split into parts that other workers pick out of one file, each part checked by itself whenever it is read.

A file is the parts one after the other, Arrow's stream format each, then a table of their ends and CRC-32s, then the
CRC-32 of that table and the number of parts.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.engine.files import File, check_file, whole_file

_TAIL = struct.Struct("<II")
_ROW = np.dtype([("end", "<u8"), ("crc", "<u4")])
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)  # parts are small


def pack(table: pa.Table, parts: np.ndarray, number: int) -> bytes:
    """Bytes whose part i holds the rows with part i, in order; parts (n,) integers in [0, number)."""
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(number + 1))
    table = table.take(order).combine_chunks()
    blocks = [_block(table.slice(start, stop - start)) for start, stop in itertools.pairwise(bounds.tolist())]
    rows = np.empty(number, _ROW)
    rows["end"] = np.cumsum([len(block) for block in blocks])
    rows["crc"] = [zlib.crc32(block) for block in blocks]
    return b"".join([*blocks, rows.tobytes(), _TAIL.pack(zlib.crc32(rows.tobytes()), number)])


def _block(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(folder: Path, file: File, part: int) -> pa.Table:
    """The rows of one part.

    Raises:
        DamagedFileError: if the file is not what its stage wrote, so far as this part is concerned.
    """
    try:
        return _read(whole_file(folder, file), file.bytes, part)
    except (OSError, ValueError):
        check_file(folder, file)
        raise  # the file is whole, so this is something else


def _read(path: Path, size: int, part: int) -> pa.Table:
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size != size:
            raise ValueError(f"expected {size} bytes in {path}")
        stream.seek(size - _TAIL.size)
        crc, number = _TAIL.unpack(stream.read())
        table = size - _TAIL.size - number * _ROW.itemsize
        if table < 0:
            raise ValueError(f"expected fewer than {number} parts in {path}")
        stream.seek(table)
        rows = np.frombuffer(_checked(stream.read(number * _ROW.itemsize), crc, path), _ROW)
        start, end = int(rows["end"][part - 1]) if part else 0, int(rows["end"][part])
        stream.seek(start)
        block = _checked(stream.read(end - start), int(rows["crc"][part]), path)
    return pa.ipc.open_stream(block).read_all()


def _checked(data: bytes, crc: int, path: Path) -> bytes:
    if zlib.crc32(data) != crc:
        raise ValueError(f"expected other bytes in {path}: the checksum does not fit")
    return data


def gather(folder: Path, files: Sequence[File], part: int) -> pa.Table:
    """The rows of one part in all files, in the files' order.

    Raises:
        DamagedFileError: as `unpack`.
    """
    return pa.concat_tables([unpack(folder, file, part) for file in files])
