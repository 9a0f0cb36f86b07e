"""Lists of images: text, tables and Parquet files, local or at any fsspec URL, read a line or a batch at a time."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from cluster.shard.places import is_image_name

#: The columns that are looked for, in this order, if corpus.column does not say.
COLUMNS = ("path", "url", "file", "filename", "file_name", "image", "image_path")
#: What separates columns: the comma, the tab, and the semicolon of spreadsheets where the comma is in numbers.
_SEPARATORS = (",", "\t", ";")
#: What people keep lists in and nobody here reads as one.
_NO_LISTS = ("json", "xlsx", "xls", "ods", "zip", "gz", "tar")


class Line(NamedTuple):
    """One entry of a list: its number, from 1 on, and what stands there; with `error` it is none."""

    number: int
    text: str
    error: str = ""


def entries(place: str, column: str | None = None) -> Iterator[Line]:
    """The entries of a list: lines of a text file, or a column of a .csv, .tsv, .jsonl or .parquet file.

    Empty ones are left out. A table's columns are separated by what separates its header's: `,`, `;` or a tab.
    A Parquet column holds text, text as bytes, or records with a `path`, as Hugging Face's images are.

    Raises:
        ValueError: if there is no such list or column, the column holds something else, or a Parquet file is none.
    """
    kind = place.rpartition(".")[2].lower()
    if kind in _NO_LISTS or is_image_name(place):
        raise ValueError(
            f"expected a text file with one image a line, or a .{', .'.join(_READERS)} file, at corpus.list={place}, "
            f"got .{kind}; write it as one of these"
        )
    try:
        with fsspec.open(place, "rb") if "://" in place else open(place, "rb") as file:
            for line in _READERS.get(kind, _lines)(file, place, column):
                if (text := line.text.strip()) or line.error:
                    yield line._replace(text=text)
    except FileNotFoundError as error:
        raise ValueError(f"expected a list of images at corpus.list={place}, there is no such file") from error
    except IsADirectoryError as error:
        raise ValueError(
            f"expected a list of images at corpus.list={place}, got a folder; give corpus.root="
        ) from error
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"expected a whole .{kind} file at corpus.list={place}, got a damaged one ({error})"
        ) from error


def _lines(file: IO[bytes], _: str, __: str | None) -> Iterator[Line]:
    return (Line(number, text) for number, text in enumerate(_texts(file), 1))


def _texts(file: IO[bytes]) -> Iterator[str]:
    """Lines of UTF-8, or of UTF-16 where the file begins with its mark, as Windows writes it."""
    start = file.read(2)
    file.seek(0)
    wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    code = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    yield from io.TextIOWrapper(file, *code, newline="\n")


def _csv(file: IO[bytes], place: str, column: str | None) -> Iterator[Line]:
    texts = _texts(file)
    first = next(texts, "")
    headers = {separator: next(csv.reader([first], delimiter=separator), []) for separator in _SEPARATORS}
    fitting = (one for one, header in headers.items() if _columns(header, column))
    separator = next(fitting, "") or max(headers, key=lambda one: len(headers[one]))
    header = headers[separator]
    index = header.index(_column(header, place, column))
    rows = csv.reader(texts, delimiter=separator)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(rows.line_num + 1, "", str(error))
            continue
        short = f"{len(row)} columns, expected {len(header)}" if 0 < len(row) <= index else ""
        yield Line(rows.line_num + 1, row[index] if len(row) > index else "", short)


def _json(file: IO[bytes], place: str, column: str | None) -> Iterator[Line]:
    name = ""
    for number, text in enumerate(_texts(file), 1):
        if not text.strip():
            continue
        record = _record(text)
        if record is None:
            yield Line(number, "", "no JSON object")
            continue
        name = name or _column(list(record), place, column)
        value = record.get(name)
        yield Line(number, value, "") if isinstance(value, str) else Line(number, "", f"{name} is no text")


def _record(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _parquet(file: IO[bytes], place: str, column: str | None) -> Iterator[Line]:
    table = pq.ParquetFile(file)
    name = _column(table.schema_arrow.names, place, column)
    kind = table.schema_arrow.field(name).type
    record = kinds.is_struct(kind) and kind.get_field_index("path") >= 0
    _refuse_other(kind.field("path").type if record else kind, name, place)
    number = 0
    for batch in table.iter_batches(columns=[f"{name}.path" if record else name]):
        for cell in batch.column(0).to_pylist():
            number += 1
            value = (cell or {}).get("path") if record else cell
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


_READERS = {"csv": _csv, "tsv": _csv, "jsonl": _json, "ndjson": _json, "parquet": _parquet}


def _columns(given: Sequence[str], column: str | None) -> list[str]:
    """Those of `given` that may be meant, the likeliest first."""
    return [name for wanted in ([column] if column else COLUMNS) for name in given if name.strip() == wanted]


def _column(given: Sequence[str], place: str, column: str | None) -> str:
    columns = _columns(given, column)
    if columns:
        return columns[0]
    remedy = "name the column of paths: corpus.column=NAME"
    if any(is_image_name(name.strip()) for name in given):
        remedy = "put the columns' names above: its first line is an image already"
    raise ValueError(
        f"expected the column {column or ' or '.join(COLUMNS)} in corpus.list={place}, got {', '.join(given)}; {remedy}"
    )
