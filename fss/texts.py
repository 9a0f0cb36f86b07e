"""Text files as people save them, and names of files that are no text."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """What stands in a file of UTF-8, or of UTF-16 that begins with its mark, as Windows writes it.

    Raises:
        ValueError: for another encoding, naming the file.
        OSError: if it cannot be read.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-16" if data.startswith(_WIDE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, got the byte 0x{data[error.start]:02x} at {error.start}; save it as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """What stands in a file of JSON.

    Raises:
        ValueError: for another encoding, or what is no JSON, naming the file.
        OSError: if it cannot be read.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error


def shown(path: str) -> str:
    """`path` in valid Unicode: bytes of a file name that are not UTF-8 become backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
