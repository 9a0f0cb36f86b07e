"""The user's images, wherever they are: folders, lists and tars, on this machine or at anything that fsspec opens."""

from __future__ import annotations

import functools
import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from cluster.shard import lists, tars
from cluster.shard.places import FOLDER, Entry, Local, LostError, Remote, at, is_image_name, is_url
from fss.imaging.images import EXTENSIONS, is_hidden

__all__ = ["Entry", "LostError", "CorpusInput", "fingerprint"]

#: How a list's entry becomes a path below the root: as it stands, or a bare name in VOC's folders.
_CANDIDATES = ("{}", "{}.jpg", "{}.png", "JPEGImages/{}.jpg")
#: The drivers of fsspec that any list may choose.
DRIVERS = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "file")
#: How the error of an entry begins that stands for files which are no images by their names.
_NO_IMAGE = "not_an_image"
_BRACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class CorpusInput:
    """Images below `root`, all of them or those that `list_file` names.

    `root` is a folder, a tar, or a pattern of both (`*`, `?`, `[...]`, `{000..009}`, `{a,b}`); each may be a path or an
    fsspec URL. It may be None where a list has absolute entries only. `column` is that of a CSV or Parquet list.
    No input of more than `max_bytes` is read, whatever was announced of it. Entries of a list are paths or URLs of
    `DRIVERS` and of `drivers`: a list may be somebody else's.
    """

    root: str | None
    list_file: str | None = None
    column: str | None = None
    max_bytes: int | None = None
    drivers: tuple[str, ...] = ()

    def entries(self) -> Iterator[Entry]:
        """Yield all inputs, always in one order; what is named but cannot be had comes with an error.

        Raises:
            ValueError: if the root or the list is not there.
        """
        return self._listed(self.list_file) if self.list_file else self._found()

    def read(self, path: str, offset: int = -1, size: int = 0) -> bytes:
        """The bytes of one entry.

        Raises:
            LostError: if it cannot be had, with the reason for the ledger. Errors of a store pass through.
        """
        system, place = self._place(path if offset < 0 else tars.container(path))
        data = system.read(place, offset, size, self.max_bytes)
        if offset >= 0 and len(data) != size:
            raise LostError(f"unreadable: the tar ends {size - len(data)} bytes before this member does")
        return data

    def _place(self, path: str) -> tuple[Local | Remote, str]:
        if is_url(path) or os.path.isabs(path):
            return at(path)
        if self.root is None:
            raise ValueError(f"expected absolute paths and URLs in a list without corpus.root, got {path!r}; set it")
        system, base = at(_split(self.root)[0])
        return system, os.path.join(base, path)

    def _found(self) -> Iterator[Entry]:
        assert self.root is not None
        base, patterns = _split(self.root)
        system, folder = at(base)
        if not patterns:
            if isinstance(system, Local) and not os.path.isdir(folder):
                got = "got a file; give a list as corpus.list=" if os.path.exists(folder) else "there is none"
                raise ValueError(f"expected a folder of images at corpus.root={self.root}, {got}")
            yield from self._images(system.walk(folder))
            return
        none = True
        for pattern in patterns:
            for entry in _matches(system, folder, pattern):
                none = False
                yield from self._images([entry])
        if none:
            raise ValueError(f"expected tars or images at corpus.root={self.root}, nothing matches")

    def _images(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Of what was found: the images, those in tars, what cannot be read, and other files by their kind."""
        for folder, group in itertools.groupby(entries, lambda entry: os.path.dirname(entry.path)):
            others: dict[str, tuple[str, int]] = {}
            for entry in group:
                if is_image_name(entry.path) or entry.error.startswith(FOLDER):
                    yield entry
                elif tars.is_container(entry.path):
                    yield from [entry] if entry.error else self._members(entry)
                else:
                    kind = os.path.splitext(entry.path)[1]
                    others[kind] = entry.path, others.get(kind, ("", 0))[1] + 1
            yield from (_no_image(folder, kind, *others[kind]) for kind in sorted(others))

    def _members(self, entry: Entry) -> Iterator[Entry]:
        system, place = self._place(entry.path)
        try:
            file = system.open(place)
        except OSError as error:
            yield Entry(entry.path, entry.size, error=f"unreadable: {error}")
            return
        with file:
            yield from tars.members(entry.path, entry.size, file)

    def _listed(self, place: str) -> Iterator[Entry]:
        for line in lists.entries(place, self.column):
            entry = self._entry(line)
            yield from self._members(entry) if tars.is_container(entry.path) and not entry.error else [entry]

    def _entry(self, line: lists.Line) -> Entry:
        """The input that a line names; a line that names none is a rejected input of its own."""
        error = line.error or self._refusal(line.text)
        if not error:
            try:
                return self._resolve(line.text)
            except ValueError as wrong:
                error = str(wrong)
        return Entry(line.text or f"line {line.number}", 0, error=f"bad_line: {line.number} of the list: {error}")

    def _refusal(self, name: str) -> str:
        if self.root is None and not is_url(name) and not os.path.isabs(name):
            return "expected absolute paths and URLs in a list without corpus.root; set it"
        wrong = [one for one in _drivers(name) if one not in DRIVERS and one not in self.drivers]
        if not wrong:
            return ""
        return (
            f"expected a path or a URL of {', '.join(DRIVERS)}, got {wrong[0]}; allow it with corpus.drivers={wrong[0]}"
        )

    def _resolve(self, name: str) -> Entry:
        """The input `name`: all of a line, as names may hold spaces, what its quotes hold, or its first column."""
        system, place = self._place(name)
        if isinstance(system, Remote):  # asking for each one would take longer than reading it
            return system.entry(place, name) if tars.is_container(name) else Entry(name, 0)
        entry = Entry(name, 0)
        for text in dict.fromkeys((name, name.strip("\"'"), name.split(maxsplit=1)[0])):
            for candidate in ("{}",) if os.path.isabs(text) or is_url(text) else _CANDIDATES:
                entry = system.entry(self._place(candidate.format(text))[1], candidate.format(text))
                if not entry.error:
                    return entry
        lost = system.entry(place, name)
        return lost._replace(error=lost.error.replace("it is not there", "the list names it, but it is not there"))


@dataclass(frozen=True)
class Some(CorpusInput):
    """A few of a source's inputs: files and members of tars."""

    chosen: tuple[Entry, ...] = ()

    def entries(self) -> Iterator[Entry]:
        """The chosen ones."""
        return iter(self.chosen)


def _drivers(name: str) -> list[str]:
    """The fsspec drivers that a path or URL asks for, which may be a chain: zip://a.jpg::http://host/b.zip."""
    if not is_url(name):
        return []
    return [part.partition("://")[0].lower() for part in name.split("::")]


def _no_image(folder: str, kind: str, last: str, number: int) -> Entry:
    """The line for the files of a folder that no image's name has: a corpus may have as many of them as images."""
    place = last if number == 1 else os.path.join(folder, f"*{kind}")
    files = "its name ends" if number == 1 else f"the names of {number} files end"
    return Entry(place, 0, error=f"{_NO_IMAGE}: {files} as no image's does; give images of such names in corpus.list")


def fingerprint(source: CorpusInput) -> tuple[int, str]:
    """Number of entries and a hash over all (path, bytes, offset), in constant memory and whatever their order.

    A file replaced by another of exactly the same size goes unnoticed here.
    """
    total, number, images = 0, 0, 0
    for entry in source.entries():
        text = "\0".join(map(str, entry)).encode("utf-8", "surrogateescape")
        total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        number += 1
        images += not entry.error.startswith(_NO_IMAGE)
    if images == 0:
        raise _none(source)
    return number, f"{total % (1 << 128):032x}"


def look(source: CorpusInput | None) -> None:
    """Open the source as far as its first entry; None is nothing to open.

    Raises:
        ValueError: if it is not there, or empty.
    """
    if source is not None and next(iter(source.entries()), None) is None:
        raise _none(source)


def apart(source: CorpusInput, root: str) -> None:
    """Look whether a run that writes below `root` leaves its images alone: else its own files become inputs.

    Each command would find another corpus than the one before, and nothing would ever be done. A list names its inputs.

    Raises:
        ValueError: if the source finds what lies in `root`.
    """
    if source.root is None or source.list_file:
        return
    base, patterns = _split(source.root)
    below = _below(base, root)
    if below is None or any(map(is_hidden, below)):
        return
    ways = ["/".join(below[:depth]) for depth in range(len(below) + 1)]
    if not patterns or any("**" in one or any(_leads(way, one) for way in ways) for one in patterns):
        raise ValueError(
            f"root: expected a folder whose files are no images of corpus.root={source.root}, got {root}, which lies "
            "in it; set another root=, or name the folder of images alone"
        )


def _below(base: str, root: str) -> tuple[str, ...] | None:
    """The way from the folder `base` to `root`: nothing if they are one, None if it leads elsewhere."""
    if is_url(base) != is_url(root):
        return None
    above, place = (PurePath(one if is_url(one) else os.path.realpath(one)) for one in (base, root))
    return place.relative_to(above).parts if place.is_relative_to(above) else None


def _leads(way: str, pattern: str) -> bool:
    """Whether a pattern fits a way below the same folder, which has as many parts."""
    return way.count("/") == pattern.count("/") and PurePath(way).match(pattern)


def _none(source: CorpusInput) -> ValueError:
    place = source.list_file or source.root
    return ValueError(f"corpus.root: expected images ({', '.join(sorted(EXTENSIONS))}) in {place}, found none")


@functools.lru_cache(maxsize=64)
def _split(root: str) -> tuple[str, tuple[str, ...]]:
    """The folder that paths are relative to, and patterns below it: none for a folder, its own name for a tar."""
    magic = "*[{" if is_url(root) else "*?[{"
    wild = any(c in root for c in magic) and (is_url(root) or not os.path.lexists(root))
    if not wild and not (tars.is_container(root) and not os.path.isdir(root)):
        return root, ()
    parts = root.rstrip("/").split("/")
    first = next((i for i, part in enumerate(parts) if any(c in part for c in magic)), None) if wild else None
    first = len(parts) - 1 if first is None else first
    base = "/".join(parts[:first]) or ("/" if root.startswith("/") else ".")
    name = "/".join(parts[first:])
    return base, tuple(_braces(name)) if wild else (name,)


def _braces(pattern: str) -> Iterator[str]:
    """The shell's {a,b} and {000..009}, from left to right."""
    brace = _BRACE.search(pattern)
    if brace is None:
        yield pattern
        return
    choices: Iterable[str] = brace[1].split(",")
    if (numbers := re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])) is not None:
        width = len(numbers[1])
        choices = (f"{i:0{width}}" for i in range(int(numbers[1]), int(numbers[2]) + 1))
    for choice in choices:
        yield from _braces(pattern[: brace.start()] + choice + pattern[brace.end() :])


def _matches(system: Local | Remote, folder: str, pattern: str) -> Iterator[Entry]:
    """What matches, folders walked; a pattern without wildcards that matches nothing is an entry with an error."""
    literal = f"{folder.rstrip('/')}/{pattern}"
    if not glob.has_magic(pattern) or (isinstance(system, Local) and os.path.lexists(literal)):
        places = [literal]
    elif isinstance(system, Local):
        places = sorted(glob.iglob(f"{glob.escape(folder)}/{pattern}", recursive=True))
    else:
        places = sorted(system.system.glob(literal))
    for place in places:
        shown = place[len(folder) :].lstrip("/")
        is_folder = os.path.isdir(place) if isinstance(system, Local) else system.system.isdir(place)
        if not is_folder:
            yield system.entry(place, shown)
        else:
            yield from (e._replace(path=os.path.join(shown, e.path)) for e in system.walk(place))
