"""Uncompressed tars and WebDataset shards as folders of images: listed by their headers, read by byte ranges.

Nothing is extracted and a member's name is never used as a path; members that are no images are not looked at.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Generator, Iterator
from pathlib import PurePosixPath
from typing import IO

from cluster.shard.places import Entry, is_image_name

_CONTAINER = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst|zip|7z|rar)$", re.IGNORECASE)
_MEMBER = re.compile(r"\.tar::", re.IGNORECASE)
_END = bytes(2 * tarfile.BLOCKSIZE)
_DAMAGE = (tarfile.TarError, ValueError, EOFError, OverflowError)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.DIRTYPE: "a folder",
}


def is_container(path: str) -> bool:
    """Whether a path names a tar or another archive."""
    return _CONTAINER.search(path) is not None


def container(path: str) -> str:
    """The tar of a member's path: shards/a.tar of shards/a.tar::inner/name.jpg."""
    found = _MEMBER.search(path)
    return path if found is None else path[: found.start() + len(".tar")]


def members(path: str, size: int, file: IO[bytes] | None) -> Iterator[Entry]:
    """The images in a tar of `size` bytes; and the tar itself with an error, if it is damaged or cannot be read.

    `file` is the opened tar; None for what cannot be opened. What stands before damage is given first.
    """
    if file is None or not path.lower().endswith(".tar") or file.read(3).startswith((b"\x1f\x8b", b"BZh", b"\xfd7z")):
        yield Entry(path, size, error="compressed: images are read from uncompressed tars by byte range; unpack this")
        return
    file.seek(0)
    damage = f"0 of {size}: no tar header"
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            damage = yield from _scan(path, size, tar, file)
    except _DAMAGE as error:
        damage = f"0 of {size}: {error}"
    if damage:
        yield Entry(path, size, error=f"damaged: this tar cannot be read from byte {damage}; what is before is taken")


def _scan(path: str, size: int, tar: tarfile.TarFile, file: IO[bytes]) -> Generator[Entry, None, str]:
    """The members; returns the position and kind of the damage that ended them, "" at the proper end."""
    while True:
        at = tar.offset
        try:
            info = tar.next()
        except _DAMAGE as error:
            return f"{at} of {size}: {error}"
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
        if info is None:
            break
        if info.offset_data + (info.size if info.isreg() and not info.issparse() else 0) > size:
            return f"{info.offset} of {size}: the file ends within {info.name!r}"
        if (entry := _entry(path, info)) is not None:
            yield entry
    # Where tarfile cannot read a header it stops as if the tar ended; a whole one ends in two zero blocks.
    file.seek(at)
    return "" if file.read(len(_END)) == _END else f"{at} of {size}: no readable header and no end of the tar"


def _entry(path: str, info: tarfile.TarInfo) -> Entry | None:
    name = info.name.removeprefix("./")
    if info.isdir() or not is_image_name(name):
        return None
    place = f"{path}::{name}"
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        return Entry(place, info.size, error="unsafe_name: an absolute path, or one with ..; pack the tar anew")
    if info.type in _KINDS or not info.isreg():
        return Entry(place, 0, error=f"not_a_file: {_KINDS.get(info.type, 'a special member')} in a tar")
    if info.issparse():
        return Entry(place, info.size, error="not_a_file: a sparse member has no byte range; pack the tar anew")
    return Entry(place, info.size, info.offset_data)
