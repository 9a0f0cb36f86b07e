"""Lists of images: text, CSV and Parquet files, local or at any fsspec URL, read a line or a batch at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

#: The columns that are looked for, in this order, if corpus.column does not say.
COLUMNS = ("path", "url", "file", "filename", "image")


def names(place: str, column: str | None = None) -> Iterator[str]:
    """The entries of a list: lines of a text file, or a column of a .csv or .parquet file; empty ones are left out.

    Raises:
        ValueError: if there is no such list or column, or a Parquet file is none.
    """
    kind = place.rpartition(".")[2].lower()
    try:
        with fsspec.open(place, "rb") if "://" in place else open(place, "rb") as file:
            for name in _READERS.get(kind, _lines)(file, place, column):
                if name and (entry := str(name).strip()):
                    yield entry
    except FileNotFoundError as error:
        raise ValueError(f"expected a list of images at corpus.list={place}, there is no such file") from error
    except (pa.ArrowInvalid, csv.Error) as error:
        raise ValueError(
            f"expected a whole .{kind} file at corpus.list={place}, got a damaged one ({error})"
        ) from error


def _lines(file: IO[bytes], _: str, __: str | None) -> Iterator[str]:
    for number, line in enumerate(file):
        yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).decode("utf-8", "surrogateescape")


def _csv(file: IO[bytes], place: str, column: str | None) -> Iterator[str]:
    rows = csv.reader(_lines(file, place, None))
    header = next(rows, [])
    index = header.index(_column(header, place, column))
    return (row[index] for row in rows if len(row) > index)


def _parquet(file: IO[bytes], place: str, column: str | None) -> Iterator[Any]:
    table = pq.ParquetFile(file)
    name = _column(table.schema_arrow.names, place, column)
    for batch in table.iter_batches(columns=[name]):
        yield from batch.column(0).to_pylist()


_READERS = {"csv": _csv, "parquet": _parquet}


def _column(given: Sequence[str], place: str, column: str | None) -> str:
    found = [name for wanted in ([column] if column else COLUMNS) for name in given if name.strip() == wanted]
    if not found:
        raise ValueError(
            f"expected the column {column or ' or '.join(COLUMNS)} in corpus.list={place}, got {', '.join(given)}; "
            "name the column of paths: corpus.column=NAME"
        )
    return found[0]
