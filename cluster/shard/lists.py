"""Lists of images: text, CSV and Parquet files, local or at any fsspec URL, read a line or a batch at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

#: The columns that are looked for, in this order, if corpus.column does not say.
COLUMNS = ("path", "url", "file", "filename", "image")


class Line(NamedTuple):
    """One entry of a list: its number, from 1 on, and what stands there; with `error` it is none."""

    number: int
    text: str
    error: str = ""


def entries(place: str, column: str | None = None) -> Iterator[Line]:
    """The entries of a list: lines of a text file, or a column of a .csv or .parquet file; empty ones are left out.

    A Parquet column holds text, text as bytes, or records with a `path`, as Hugging Face's images are.

    Raises:
        ValueError: if there is no such list or column, the column holds something else, or a Parquet file is none.
    """
    kind = place.rpartition(".")[2].lower()
    try:
        with fsspec.open(place, "rb") if "://" in place else open(place, "rb") as file:
            for line in _READERS.get(kind, _lines)(file, place, column):
                if (text := line.text.strip()) or line.error:
                    yield line._replace(text=text)
    except FileNotFoundError as error:
        raise ValueError(f"expected a list of images at corpus.list={place}, there is no such file") from error
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"expected a whole .{kind} file at corpus.list={place}, got a damaged one ({error})"
        ) from error


def _lines(file: IO[bytes], _: str, __: str | None) -> Iterator[Line]:
    return (Line(number, text) for number, text in enumerate(_texts(file), 1))


def _texts(file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(file):
        yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).decode("utf-8", "surrogateescape")


def _csv(file: IO[bytes], place: str, column: str | None) -> Iterator[Line]:
    rows = csv.reader(_texts(file))
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise ValueError(f"expected a table with a header at corpus.list={place}, got {error}") from error
    index = header.index(_column(header, place, column))
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(rows.line_num, "", str(error))
            continue
        short = f"{len(row)} columns, expected {len(header)}" if 0 < len(row) <= index else ""
        yield Line(rows.line_num, row[index] if len(row) > index else "", short)


def _parquet(file: IO[bytes], place: str, column: str | None) -> Iterator[Line]:
    table = pq.ParquetFile(file)
    name = _column(table.schema_arrow.names, place, column)
    kind = table.schema_arrow.field(name).type
    record = kinds.is_struct(kind) and kind.get_field_index("path") >= 0
    _refuse_other(kind.field("path").type if record else kind, name, place)
    number = 0
    for batch in table.iter_batches(columns=[f"{name}.path" if record else name]):
        for found in batch.column(0).to_pylist():
            number += 1
            value = (found or {}).get("path") if record else found
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
            yield Line(number, text or "", "" if text or not record else "the record has no path")


def _refuse_other(kind: pa.DataType, name: str, place: str) -> None:
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    tests = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_binary, kinds.is_large_binary)
    if not any(test(plain) for test in (*tests, kinds.is_binary_view, kinds.is_fixed_size_binary)):
        raise ValueError(
            f"expected text, bytes or records with a path in the column {name} of corpus.list={place}, got {kind}; "
            "name the column of paths: corpus.column=NAME"
        )


_READERS = {"csv": _csv, "parquet": _parquet}


def _column(given: Sequence[str], place: str, column: str | None) -> str:
    found = [name for wanted in ([column] if column else COLUMNS) for name in given if name.strip() == wanted]
    if not found:
        raise ValueError(
            f"expected the column {column or ' or '.join(COLUMNS)} in corpus.list={place}, got {', '.join(given)}; "
            "name the column of paths: corpus.column=NAME"
        )
    return found[0]
