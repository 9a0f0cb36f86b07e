"""Where a command may write: never where it would be lost, and never over what others made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from cluster.engine.refused import RefusedError
from cluster.storage import bucket

#: Folders below which other disks are mounted, each under a name of its own.
_MOUNTS = ("/mnt", "/media", "/net", "/Volumes")
#: Where the system says what it mounts.
_TABLE = Path("/etc/fstab")


def writable(path: str, key: str) -> Path:
    """The folder or file that `key`=`path` means, absolute; nothing is made or touched.

    Raises:
        RefusedError: if what is written there would be lost: in Ray's copy of the code, below a missing disk, or in a
            folder that is called like an address or like ~; or if nothing can be written below a file.
    """
    if "://" in path or path.startswith("~") or not path.isprintable():
        hint = f"mount it, or set {key}=PATH{' or root=s3://BUCKET/FOLDER' if key == 'root' else ''}"
        hint = "no shell reads ~ behind =, write $HOME" if path.startswith("~") else hint
        raise RefusedError(f"{key}: expected a path on a disk, got {path!r}; {hint}")
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not os.path.isabs(path):
        raise RefusedError(
            f"{key}: expected an absolute path inside of a Ray job, got {path!r}, which lies in Ray's copy of the code "
            f"and goes with it; set {key}=/PATH/ON/SHARED/STORAGE"
        )
    target = Path(path).resolve()
    for place in _mount_points(target):
        if not place.is_dir() or not (os.path.ismount(place) or any(place.iterdir())):
            raise RefusedError(
                f"{key}: {place} is not mounted, so {target} would be another place; mount it, or set {key}="
            )
    above = next(one for one in target.parents if os.path.lexists(one))
    if not above.is_dir():
        raise RefusedError(
            f"{key}: expected a path below a folder, got {target}, and {above} is none; set another {key}="
        )
    return target


def root(place: str) -> Path:
    """The folder of runs that root=`place` means; of a bucket's, that of this machine's copies.

    Raises:
        RefusedError: if it is neither a folder that is `writable` nor one of a bucket.
    """
    if not bucket.is_address(place):
        return writable(place, "root")
    try:
        return bucket.copy_of(place)
    except ValueError as error:
        raise RefusedError(f"root: {error}; set root=s3://BUCKET/FOLDER") from error


def _mount_points(path: Path) -> Iterator[Path]:
    """The folders on the way to `path` that other disks are mounted on, or should be."""
    table = _TABLE.read_text(errors="replace").splitlines() if _TABLE.is_file() else []
    listed = {line.split()[1] for line in table if len(line.split()) > 1 and not line.lstrip().startswith("#")}
    for folder in reversed((path, *path.parents)):
        if str(folder.parent) in _MOUNTS or (str(folder) in listed and folder != Path("/")):
            yield folder


def own_folder(path: str, key: str, mark: str) -> Path:
    """The folder `key`=`path` for results, the first of which is the file `mark`: new, empty, or of such a command.

    Raises:
        RefusedError: if it is a file, or a folder of somebody else's, or `writable` refuses it.
    """
    folder = writable(path, key)
    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"{key}: expected a folder, {folder} is a file; set another {key}=")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise RefusedError(
            f"{key}: expected a new or empty folder, or one that this command wrote before ({mark}), got {folder}, "
            f"which holds {min(one.name for one in folder.iterdir())}; set another {key}="
        )
    return folder


def own_file(path: str, key: str, mark: str) -> Path:
    """The JSON file `key`=`path` for a result that has the key `mark`: new, or written by such a command before.

    Raises:
        RefusedError: if it is a folder or somebody else's file, or `writable` refuses it.
    """
    file = writable(path, key)
    if file.is_dir():
        raise RefusedError(f"{key}: expected a file, {file} is a folder; set {key}={file / 'NAME.json'}")
    if file.exists() and not _has(file, mark):
        raise RefusedError(
            f"{key}: expected a new file, or one that this command wrote before, got {file}, which is another; set "
            f"another {key}="
        )
    return file


def _has(file: Path, mark: str) -> bool:
    try:
        value = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and mark in value
