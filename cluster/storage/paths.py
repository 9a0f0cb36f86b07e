"""What one does to a run's files: pathlib's on a path of this machine alone, the bucket's where a path belongs to one.

Of a bucket's files this machine has copies at their paths (`cluster.storage.bucket`): of what it wrote, and of what it
read. They may go at any time, and be out of date where others wrote since. So what changes is always read in the
bucket; a copy serves only where its sha256 is known, or after `bring`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cluster.storage import bucket

#: Share of its disk that copies leave free, and seconds in which a copy that was used stays.
_FREE, _IN_USE = 0.1, 600.0
#: Folders whose copies stay: their files are opened by path, or are more than copies.
_KEPT = ("tracking", "features", "registered")


def place(root: str | Path) -> Path:
    """The path of a folder of runs: of a bucket's, that of its copies."""
    return bucket.copy_of(str(root)) if bucket.is_address(root) else Path(root).absolute()


def stored(path: Path) -> bool:
    """Whether it belongs to a bucket."""
    return bucket.key(path) is not None


def send(path: Path, data: bytes) -> None:
    """Publish what is about to be at `path`, if it belongs to a bucket; its folder is there."""
    if (name := bucket.key(path)) is not None:
        bucket.put(name, data)
        _make_room(path)


def send_files(files: Iterable[Path]) -> None:
    """Publish files that somebody wrote to their paths, those that belong to a bucket."""
    for _ in bucket.each(lambda path: send(path, path.read_bytes()), filter(stored, files)):
        pass


def read_bytes(path: Path, size: int = 0) -> bytes:
    """The file as it is now, of `size` bytes if they are known.

    Raises:
        FileNotFoundError: if there is none.
    """
    name = bucket.key(path)
    return path.read_bytes() if name is None else bucket.get(name, size)


def read_each(paths: Iterable[Path]) -> Iterator[bytes | None]:
    """The files as they are now, in order, None for one that is not there."""
    wanted = list(paths)
    each = bucket.each if any(map(stored, wanted)) else map
    return each(_read_or_none, wanted)


def _read_or_none(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


def copied(path: Path) -> bytes | None:
    """What this machine has of a bucket's file, if it has; it is used now."""
    if not stored(path):
        return None
    try:
        data = path.read_bytes()
        _used(path)
    except OSError:
        return None
    return data


def keep(path: Path, data: bytes) -> None:
    """Have a copy of a bucket's file, if there is room."""
    if stored(path):
        with contextlib.suppress(OSError), _whole(path) as temporary:
            temporary.write_bytes(data)
        _make_room(path)


def fetch(path: Path) -> Path:
    """Copy a bucket's file as it is now to its path; return that.

    Raises:
        FileNotFoundError: if there is none.
    """
    if (name := bucket.key(path)) is not None:
        with _whole(path) as temporary:
            bucket.download(name, temporary)
        _make_room(path)
    return path


def here(path: Path) -> Path:
    """The path of a file that nobody writes anew, after copying it if it is not here.

    Raises:
        FileNotFoundError: if it is in a bucket and not there.
    """
    return fetch(path) if stored(path) and not path.exists() else path


def bring(folder: Path) -> Path:
    """Copy all that a bucket has below `folder`, or the file, to its path, for those who open files by their paths.

    What is here already is not copied again, and nothing of it goes to make room.
    """
    name = bucket.key(folder)
    if name is None:
        return folder
    found = bucket.listing(name)
    late = [(folder / inner, about) for inner, about in found.items() if not _is_copy(folder / inner, about)]
    for path, about in bucket.each(lambda one: (fetch(one[0]), one[1]), late):
        os.utime(path, (time.time(), about.modified))
    if found:
        _mark(folder).touch()
    else:
        with contextlib.suppress(FileNotFoundError):
            here(folder)
    return folder


def _mark(folder: Path) -> Path:
    """The file beside a folder that says that it was brought."""
    return folder.with_name(f".{folder.name}.brought")


def _is_copy(path: Path, about: bucket.About) -> bool:
    """Whether the file is the object; one put in parts, whose tag is no MD5, is told by the time `bring` gave it."""
    try:
        found = path.stat()
        if found.st_size != about.size or "-" in about.tag:
            return found.st_size == about.size and abs(found.st_mtime - about.modified) < 1e-3
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == about.tag
    except OSError:
        return False


def sizes(folder: Path) -> Callable[[str], int | None]:
    """The size in bytes of a file, None if it is not there, by its path relative to `folder`."""
    name = bucket.key(folder)
    if name is None:
        return lambda inner: (folder / inner).stat().st_size if (folder / inner).is_file() else None
    found = bucket.listing(name)
    return lambda inner: found[inner].size if inner in found else None


def matching(folder: Path, pattern: str) -> list[Path]:
    """What is below `folder` and fits a pattern of one or more parts, sorted."""
    name = bucket.key(folder)
    if name is None:
        return sorted(folder.glob(pattern))
    return [folder / inner for inner in bucket.matching(name, pattern)]


def newest(files: Iterable[Path]) -> Path | None:
    """The file that was written last."""
    return max(files, key=_modified, default=None)


def _modified(path: Path) -> float:
    name = bucket.key(path)
    return path.stat().st_mtime if name is None else bucket.modified(name)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    if (name := bucket.key(path)) is not None:
        bucket.remove([name])
    path.unlink(missing_ok=True)


def empty(folder: Path, but: str) -> None:
    """Remove all below a folder but one file."""
    if (name := bucket.key(folder)) is not None:
        bucket.remove([f"{name}/{inner}" for inner in bucket.listing(name) if inner != but])
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != but:
            path.unlink()


def remove_tree(folder: Path, names: Iterable[str] | None = None) -> None:
    """Remove a folder and all below, if it is there; `names` are those of its files, if they are known."""
    if (name := bucket.key(folder)) is not None:
        bucket.remove([f"{name}/{inner}" for inner in (bucket.listing(name) if names is None else names)])
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _used(path: Path) -> None:
    os.utime(path, (time.time(), path.stat().st_mtime))


def _make_room(path: Path) -> None:
    """Remove the copies that were not used for longest, if too little of the disk is free."""
    top = Path(*path.parts[: path.parts.index(bucket.MARK) + 1])
    disk = shutil.disk_usage(top)
    if (lacking := _FREE * disk.total - disk.free) <= 0:
        return
    for _, number, old in sorted(_copies(top)):
        if lacking <= 0:
            return
        with contextlib.suppress(OSError):
            old.unlink()
            lacking -= number


def _copies(top: Path) -> Iterator[tuple[float, int, Path]]:
    """When each copy that may go was used last, its size and path."""
    before = time.time() - _IN_USE
    for folder, folders, names in os.walk(top):
        brought = {one for one in folders if _mark(Path(folder, one)).name in names}
        folders[:] = [one for one in folders if not (one in brought or one in _KEPT or one.startswith("."))]
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                about = path.stat()
                if not name.startswith(".") and about.st_atime < before:
                    yield about.st_atime, about.st_size, path
