"""Tables split into parts that other workers pick out: Parquet files with one row group for each part."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def pack(table: pa.Table, parts: np.ndarray, number: int) -> bytes:
    """Parquet bytes whose row group i holds the rows with part i, in order; parts (n,) integers in [0, number)."""
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(number + 1))
    table, buffer = table.take(order), io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        for start, stop in itertools.pairwise(bounds.tolist()):
            writer.write_table(table.slice(start, stop - start), row_group_size=max(1, stop - start))
    return buffer.getvalue()


def unpack(path: Path, part: int) -> pa.Table:
    """The rows of one part."""
    with pq.ParquetFile(path) as file:
        return file.read_row_group(part)


def gather(paths: tuple[Path, ...], part: int) -> pa.Table:
    """The rows of one part in all files, in the files' order."""
    return pa.concat_tables([unpack(path, part) for path in paths])
