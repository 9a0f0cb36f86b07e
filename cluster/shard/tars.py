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
#: Reads in a row of one tar that may go over what was read before, and bytes looked through at once for its end.
_MOST_IDLE, _BLOCK = 64, 1 << 20
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
    member = _MEMBER.search(path)
    return path if member is None else path[: member.start() + len(".tar")]


def members(path: str, size: int, file: IO[bytes] | None) -> Iterator[Entry]:
    """The images in a tar of `size` bytes; and the tar itself with an error, if it is damaged or cannot be read.

    `file` is the opened tar; None for what cannot be opened. What stands before damage is given first.
    """
    if file is None or not path.lower().endswith(".tar") or file.read(3).startswith((b"\x1f\x8b", b"BZh", b"\xfd7z")):
        yield Entry(path, size, error="compressed: images are read from uncompressed tars by byte range; unpack this")
        return
    damage, start = "", 0
    while not damage and (start == 0 or start < size):  # again behind each end: tars may have been put together
        file.seek(start)
        try:
            with tarfile.open(fileobj=_Forward(file, start), mode="r:", errors="surrogateescape") as tar:  # type: ignore[call-overload]
                damage = yield from _scan(path, size, tar, file)
                start = _behind_zeros(file, tar.offset, size)
        except _DAMAGE as error:
            damage = f"{start} of {size}: {error}"
    if damage:
        yield Entry(path, size, error=f"damaged: this tar cannot be read from byte {damage}; what is before is taken")


class _Forward:
    """A tar's file for tarfile, which can be led in circles by what stands in a header: reading must get on."""

    def __init__(self, file: IO[bytes], start: int):
        self._file, self._farthest, self._idle = file, start, 0

    def read(self, size: int = -1) -> bytes:
        """As the file's; ReadError if many reads in a row have come no farther than those before."""
        data = self._file.read(size)
        self._idle = self._idle + 1 if self._file.tell() <= self._farthest else 0
        self._farthest = max(self._farthest, self._file.tell())
        if self._idle > _MOST_IDLE:
            raise tarfile.ReadError("its headers lead in a circle")
        return data

    def seek(self, *arguments: int) -> int:
        """As the file's."""
        return self._file.seek(*arguments)

    def tell(self) -> int:
        """As the file's."""
        return self._file.tell()


def _behind_zeros(file: IO[bytes], start: int, size: int) -> int:
    """Where the first block from `start` on that is not all zeros begins; `size` if there is none."""
    file.seek(start)
    while block := file.read(_BLOCK):
        if block.strip(b"\0"):
            first = start + len(block) - len(block.lstrip(b"\0"))
            return first - first % tarfile.BLOCKSIZE
        start += len(block)
    return size


def _scan(path: str, size: int, tar: tarfile.TarFile, file: IO[bytes]) -> Generator[Entry, None, str]:
    """The members; returns the position and kind of the damage that ended them, "" at the proper end."""
    last = -1
    while True:
        at = tar.offset
        try:
            info = tar.next()
        except _DAMAGE as error:
            return f"{at} of {size}: {error}"
        if info is not None and info.offset <= last:
            return f"{at} of {size}: its headers lead in a circle"
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
        if info is None:
            break
        last = info.offset
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
