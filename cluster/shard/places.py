"""Files and folders where they lie, on this machine or at an fsspec URL: what is there, and its bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, NoReturn

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cluster.tracking.redact import redact
from fss.imaging import images

#: Read ahead in a remote file whose headers are listed, bytes.
_AHEAD = 1 << 16
#: Read at once of a file whose size is not known, bytes.
_BLOCK = 1 << 20
#: How the error of an entry begins that stands for a folder.
FOLDER = "folder"
_NO_FILE = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Entry(NamedTuple):
    """One listed input: its path as the ledger shows it, and bytes (0 if unknown).

    A member of a tar begins at byte `offset` of that. With `error` it is rejected without being read.
    """

    path: str
    size: int
    offset: int = -1
    error: str = ""


class LostError(Exception):
    """This input cannot be had, now or later; `str` is the reason for the ledger. Other errors may pass."""

    def __init__(self, reason: str):
        super().__init__(redact(reason))


def is_url(place: str) -> bool:
    """Whether fsspec has to open it."""
    return "://" in place


def is_image_name(name: str) -> bool:
    """Whether a name is that of an image that is an input, though perhaps of a kind that nobody here decodes."""
    return images.is_image_name(name, images.NAMED)


class Local:
    """The files of this machine, by their paths."""

    def entry(self, path: str, shown: str) -> Entry:
        """What is at `path`: never opened, so that a pipe cannot hang."""
        try:
            about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            lost = "missing: " + ("a link to nothing" if os.path.islink(path) else "it is not there")
            return Entry(shown, 0, error=lost)
        except (OSError, ValueError) as error:  # circles of links, names that cannot be
            return Entry(shown, 0, error=f"unreadable: {getattr(error, 'strerror', None) or error}")
        if not stat.S_ISREG(about.st_mode):
            return Entry(shown, 0, error=f"not_a_file: {_NO_FILE.get(stat.S_IFMT(about.st_mode), 'something else')}")
        return Entry(shown, about.st_size)

    def walk(self, root: str) -> Iterator[Entry]:
        """All visible files below a folder, in one order, by their paths relative to it.

        Links to files are followed; links to folders, which may form circles, and folders that cannot be read come
        as entries with an error.
        """
        refused: list[Entry] = []

        def refuse(error: OSError) -> None:
            path = os.path.relpath(str(error.filename), root)
            refused.append(Entry(path, 0, error=f"{FOLDER}: it cannot be read ({error.strerror})"))

        for folder, folders, files in os.walk(root, onerror=refuse):
            above = os.path.relpath(folder, root)
            shown = "" if above == "." else f"{above}/"
            folders[:] = sorted(name for name in folders if not images.is_hidden(name))
            for name in sorted(name for name in files if not images.is_hidden(name)):
                yield self.entry(os.path.join(folder, name), shown + name)
            for name in folders:
                if os.path.islink(os.path.join(folder, name)):
                    error = f"{FOLDER}: links to folders are not followed; list its files or make it corpus.root"
                    yield Entry(shown + name, 0, error=error)
            yield from refused
            refused.clear()
        yield from refused

    def open(self, path: str) -> IO[bytes]:
        """An ordinary file's content.

        Raises:
            OSError: also if it is no ordinary file.
        """
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        raise OSError("not a file")

    def read(self, path: str, offset: int, size: int, most: int | None = None) -> bytes:
        """The whole file, of `most` bytes at most, or `size` bytes from `offset` if that is not negative.

        Raises:
            LostError: if it cannot be read.
        """
        try:
            with self.open(path) as file:
                if offset < 0:
                    return _bounded(file, most)
                file.seek(offset)
                return file.read(size)
        except (OSError, ValueError) as error:
            raise LostError(f"unreadable: {error}") from error


class Remote:
    """The files of one fsspec file system, by the paths that it understands."""

    def __init__(self, system: Any):
        self.system = system

    def entry(self, path: str, shown: str) -> Entry:
        """What is at `path`, asked of the store."""
        try:
            about = self.system.info(path)
        except FileNotFoundError:
            return Entry(shown, 0, error="missing: it is not there")
        return Entry(shown, int(about.get("size") or 0))

    def walk(self, root: str) -> Iterator[Entry]:
        """As `Local.walk`, one folder's listing in memory at a time."""
        yield from self._below(root.rstrip("/"), "")

    def _below(self, folder: str, shown: str) -> Iterator[Entry]:
        listing = sorted(self.system.ls(folder, detail=True), key=lambda about: about["name"])
        self.system.invalidate_cache(folder)  # what changes there later is to be seen, and memory is finite
        folders = []
        for about in listing:
            name = about["name"].rstrip("/").rpartition("/")[2]
            if about["name"].strip("/") == folder.strip("/"):  # stores list a folder's own marker
                if about["type"] == "directory":  # or keys such as folder//name, which no listing goes into
                    yield from self._behind_empty(folder, shown)
                continue
            if images.is_hidden(name):
                continue
            if about["type"] == "directory":
                folders.append((about["name"], f"{shown}{name}/"))
            else:
                yield Entry(f"{shown}{name}", int(about.get("size") or 0))
        for below, path in folders:
            yield from self._below(below.rstrip("/"), path)

    def _behind_empty(self, folder: str, shown: str) -> Iterator[Entry]:
        """Keys below `folder` that go on with an empty component."""
        for path, about in sorted(self.system.find(folder, detail=True).items()):
            rest = path.removeprefix(folder)
            if rest.startswith("//") and not any(map(images.is_hidden, rest.split("/"))):
                if shown:
                    yield Entry(f"{shown}{rest[1:]}", int(about.get("size") or 0))
                else:
                    yield Entry(rest[1:], 0, error="unreadable: a key that begins with a slash; copy it to another")

    def open(self, path: str) -> IO[bytes]:
        """A file to be read here and there."""
        return self.system.open(path, "rb", block_size=_AHEAD, cache_type="readahead")

    def read(self, path: str, offset: int, size: int, most: int | None = None) -> bytes:
        """As `Local.read`.

        Raises:
            LostError: if this file cannot be had; errors of the store itself pass through, so that the unit fails and
                can be run again instead of losing images.
        """
        try:
            if offset >= 0:
                return self.system.cat_file(path, start=offset, end=offset + size)
            if self._web:  # as a stream: a range is a wish there, and a packed answer grows while it is read
                with self.system.open(path, "rb", block_size=0) as file:
                    return _bounded(file, most)
            return _within(self.system.cat_file(path, **({} if most is None else {"start": 0, "end": most + 1})), most)
        except LostError:
            raise
        except Exception as error:
            self._judge(error)

    @property
    def _web(self) -> bool:
        protocol = self.system.protocol
        return "http" in ((protocol,) if isinstance(protocol, str) else protocol)

    def _judge(self, error: Exception) -> NoReturn:
        """Single web addresses die for good; of a store only what it says of one object is believed."""
        gone = isinstance(error, FileNotFoundError | IsADirectoryError)
        forbidden = isinstance(error, PermissionError) and not any(w in str(error).lower() for w in ("expire", "token"))
        if self._web or gone or forbidden:
            raise LostError(f"unreadable: {type(error).__name__}: {error}") from error
        raise error


def at(place: str) -> tuple[Local | Remote, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        ValueError: if fsspec has no driver for it, or that does not start.
    """
    if not is_url(place):
        return Local(), place
    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(
            f"{redact(place)}: {str(error).partition(chr(10))[0]}; install or set up its driver"
        ) from error
    return (Local() if isinstance(system, LocalFileSystem) else Remote(system)), path


def _bounded(file: IO[bytes], most: int | None) -> bytes:
    """All of `file`, which may give less than it is asked for; never much more than `most` bytes of it.

    Raises:
        LostError: if it holds more.
    """
    if most is None:
        return file.read()
    parts, room = [], most + 1
    while room > 0 and (part := file.read(min(room, _BLOCK))):
        parts.append(part)
        room -= len(part)
    return _within(b"".join(parts), most)


def _within(data: bytes, most: int | None) -> bytes:
    if most is not None and len(data) > most:
        raise LostError(f"too_large: it holds more than the budget of {most} bytes (corpus.max_bytes)")
    return data
