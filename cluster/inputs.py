"""The user's images, wherever they are: local folders, list files, anything that fsspec opens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fsspec

from fss.images import EXTENSIONS

#: How a list entry becomes a path below the root: as it stands, or a bare name in VOC's folders.
_CANDIDATES = ("{}", "{}.jpg", "{}.png", "JPEGImages/{}.jpg")


@dataclass(frozen=True)
class Source:
    """Images below `root` (a path or fsspec URL), all of them or those that `list_file` names."""

    root: str
    list_file: str | None = None

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield (path relative to the root, bytes), always in one order; -1 bytes for a listed file that is not there.

        Raises:
            ValueError: if the root or the list is not there.
        """
        return self._listed() if self.list_file else self._walked()

    def read(self, path: str) -> bytes:
        """The bytes of one entry."""
        if _is_url(self.root):
            with fsspec.open(f"{self.root.rstrip('/')}/{path}", "rb") as file:
                return file.read()
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def _walked(self) -> Iterator[tuple[str, int]]:
        if _is_url(self.root):
            yield from self._walked_url()
            return
        if not os.path.isdir(self.root):
            raise ValueError(f"expected a folder of images at corpus.root={self.root}, there is none")
        for folder, folders, files in os.walk(self.root):  # links to folders are not followed: they may form circles
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                if _is_image_name(name) and os.path.isfile(path):
                    yield os.path.relpath(path, self.root), os.path.getsize(path)

    def _walked_url(self) -> Iterator[tuple[str, int]]:
        system, base = fsspec.core.url_to_fs(self.root)
        base = base.rstrip("/")
        for path, about in system.find(base, detail=True).items():
            if _is_image_name(path):
                yield str(PurePosixPath(path).relative_to(base)), int(about.get("size") or 0)

    def _listed(self) -> Iterator[tuple[str, int]]:
        path = Path(str(self.list_file))
        if not path.is_file():
            raise ValueError(f"expected a list of images at corpus.list={self.list_file}, there is no such file")
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if entry := line.strip():
                    yield self._resolve(entry)

    def _resolve(self, entry: str) -> tuple[str, int]:
        if _is_url(self.root):
            return entry, 0
        for candidate in _CANDIDATES:
            name = candidate.format(entry)
            path = os.path.join(self.root, name)
            if os.path.isfile(path):
                return name, os.path.getsize(path)
        return entry, -1


def fingerprint(source: Source) -> tuple[int, str]:
    """Number of entries and a hash over all (path, bytes), in constant memory and whatever their order.

    A file replaced by another of exactly the same size goes unnoticed here.
    """
    total, number = 0, 0
    for path, size in source.entries():
        text = f"{path}\0{size}".encode("utf-8", "surrogateescape")
        total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        number += 1
    if number == 0:
        raise ValueError(f"expected images ({', '.join(sorted(EXTENSIONS))}) in {source.root}, found none")
    return number, f"{total % (1 << 128):032x}"


def _is_url(root: str) -> bool:
    return "://" in root


def _is_image_name(name: str) -> bool:
    base = PurePosixPath(name).name
    return not base.startswith(".") and PurePosixPath(base).suffix.lower() in EXTENSIONS
