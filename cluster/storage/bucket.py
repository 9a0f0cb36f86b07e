"""Buckets of an S3 store, whose objects are whole or absent, by the paths of their copies on this machine.

What a run keeps at s3://BUCKET/KEY has the path CACHE/s3:/BUCKET/KEY on every machine. So a path tells by itself where
its file belongs, in any process on any machine. The store's address and login come from the environment (`AWS_...`).
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

T = TypeVar("T")
R = TypeVar("R")

SCHEME = "s3://"
#: The part of a path after which BUCKET/KEY follows.
MARK = "s3:"
#: Where copies lie if FSS_CACHE does not say so: not /tmp, which is memory on many machines.
_CACHE = f"/var/tmp/fss-{os.getuid()}"
#: Of botocore, which waits longer from try to try. A store that says 503 is asked again for about a minute.
_PATIENCE = {"retries": {"mode": "standard", "max_attempts": 8}, "connect_timeout": 10, "read_timeout": 60}
#: Objects asked for at a time.
_AT_ONCE = 32
#: Bytes from which on an object comes in parts: s3fs's own.
_LARGE = 50 << 20
#: Objects that one request may remove.
_LISTED = 1000
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict")


@contextlib.contextmanager
def _answers(name: str) -> Iterator[None]:
    """What botocore raises of a store that does not answer, or takes no login, as an OSError, as all else is.

    Raises:
        ConnectionError: with what it said.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("botocore"):  # which only those import who need it
            raise
        raise ConnectionError(f"{SCHEME}{name}: {error}") from error


@dataclass(frozen=True)
class About:
    """An object as a listing has it: bytes, when it was written, in seconds since 1970, and its tag.

    The tag is mostly the MD5 of an object that was put in one piece, and has a hyphen where it was put in parts.
    """

    size: int
    modified: float
    tag: str


def is_address(place: str | Path) -> bool:
    """Whether it is s3://BUCKET/KEY."""
    return str(place).startswith(SCHEME)


def cache() -> Path:
    """The folder of this machine's copies."""
    return Path(os.environ.get("FSS_CACHE") or _CACHE).absolute()


def copy_of(address: str) -> Path:
    """The path on each machine of what belongs to `address`.

    Raises:
        ValueError: if that names no bucket.
    """
    key = address.removeprefix(SCHEME).strip("/")
    if not key or not all(key.split("/")) or not key.isprintable():
        raise ValueError(f"expected s3://BUCKET/FOLDER, got {address!r}")
    return cache() / MARK / key


def key(path: Path) -> str | None:
    """BUCKET/KEY of what belongs into a bucket; None for a path of this machine alone."""
    parts = path.parts
    return "/".join(parts[parts.index(MARK) + 1 :]) if path.is_absolute() and MARK in parts else None


def address(path: Path) -> str:
    """How users know `path`."""
    name = key(path)
    return str(path) if name is None else SCHEME + name


def system() -> Any:
    """fsspec's file system of the store, one a process, for all threads: fsspec would make one for each."""
    return _system(os.getpid())


@functools.lru_cache(maxsize=1)
def _system(process: int) -> Any:
    for library in ("aiobotocore", "botocore"):  # which tell where they found the login
        logging.getLogger(library).setLevel(logging.WARNING)
    return fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=_PATIENCE, skip_instance_cache=True)


def get(name: str, size: int = 0) -> bytes:
    """A whole object, of about so many bytes if its reader knows: a large one comes in parts, several at a time.

    Raises:
        FileNotFoundError: if there is none.
    """
    at_once = None if size > _LARGE else 1  # s3fs asks for the size first if it may split: two requests in place of one
    with _answers(name):
        data: bytes = system().cat_file(name, max_concurrency=at_once)
        return data


def each(function: Callable[[T], R], values: Iterable[T]) -> Iterator[R]:
    """What `function`, which waits for the store, makes of each value, in order; many wait at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(function, values)


def download(name: str, path: Path) -> None:
    """Write a whole object into the file `path`, in constant memory.

    Raises:
        FileNotFoundError: if there is none.
    """
    with _answers(name):
        system().get_file(name, str(path))


def put(name: str, data: bytes) -> None:
    """Publish a whole object, in place of one that is there."""
    with _answers(name):
        system().pipe_file(name, data)


def put_if(name: str, data: bytes, tag: str | None) -> str | None:
    """Publish an object in place of the one with this tag, None = of none; the new tag, or None if another is there.

    A store that answers a try that had arrived may refuse its repetition: so the content has to be the writer's own.
    Tags have quotes in HTTP; Ceph's (seen with 16.2.15) finds them alike in a put only without.
    """
    if tag is None:
        new = _put_if(name, data, IfNoneMatch="*")
    else:
        new = _put_if(name, data, IfMatch=tag) or _put_if(name, data, IfMatch=tag.strip('"'))
    if new is not None:
        return new
    there = get_tagged(name)
    return there[1] if there is not None and there[0] == data else None


def _put_if(name: str, data: bytes, **condition: str) -> str | None:
    """The new tag; None if the store refuses, or has no object that the condition is about."""
    bucket, inner = _split(name)
    try:
        with _answers(name):
            return str(system().call_s3("put_object", Bucket=bucket, Key=inner, Body=data, **condition)["ETag"])
    except OSError as error:
        if "IfMatch" in condition and isinstance(error, FileNotFoundError):
            return None
        if not _refused(error):
            raise
    return None


def get_tagged(name: str) -> tuple[bytes, str] | None:
    """An object and its tag, which is another after each put of other content; None if there is none."""
    store = system()
    try:
        with _answers(name):
            found: tuple[bytes, str] = fsspec.asyn.sync(store.loop, _tagged, store, *_split(name))
            return found
    except FileNotFoundError:
        return None


async def _tagged(store: Any, bucket: str, inner: str) -> tuple[bytes, str]:
    answer = await store._call_s3("get_object", Bucket=bucket, Key=inner)
    async with answer["Body"] as body:
        return await body.read(), str(answer["ETag"])


def _split(name: str) -> tuple[str, str]:
    bucket, _, inner = name.partition("/")
    return bucket, inner


def _refused(error: OSError) -> bool:
    response: Mapping[str, Any] = getattr(error.__cause__, "response", {})
    return response.get("Error", {}).get("Code") in _REFUSED


def listing(name: str) -> dict[str, About]:
    """All objects below a folder, by their keys relative to it."""
    with _answers(name):
        found = system().find(name, detail=True)
    return {
        path.removeprefix(f"{name}/"): _about(about)
        for path, about in sorted(found.items())
        if path.startswith(f"{name}/") and about["type"] == "file"
    }


def _about(found: Mapping[str, Any]) -> About:
    return About(int(found["size"]), found["LastModified"].timestamp(), str(found["ETag"]).strip('"'))


def modified(name: str) -> float:
    """When an object was written, in seconds since 1970.

    Raises:
        FileNotFoundError: if there is none.
    """
    with _answers(name):
        return float(system().info(name)["LastModified"].timestamp())


def remove(names: Sequence[str]) -> None:
    """Remove objects of one bucket; one that is not there is no error.

    Raises:
        OSError: if the store keeps some of them.
    """
    for start in range(0, len(names), _LISTED):
        pairs = [_split(name) for name in names[start : start + _LISTED]]
        wanted = {"Objects": [{"Key": inner} for _, inner in pairs], "Quiet": True}
        with _answers(names[start]):
            answer = system().call_s3("delete_objects", Bucket=pairs[0][0], Delete=wanted)
        if errors := answer.get("Errors"):
            raise OSError(f"{SCHEME}{pairs[0][0]}: {len(errors)} objects were not removed: {errors[0]}")


def matching(name: str, pattern: str) -> list[str]:
    """The keys below a folder, relative to it, objects and folders, that fit a pattern with as many parts, sorted."""
    below = {""}
    for part in pattern.split("/"):
        below = set(itertools.chain.from_iterable(_children(name, folder, part) for folder in below))
    return sorted(below)


def _children(name: str, folder: str, pattern: str) -> list[str]:
    """What lies in `folder`, below `name`, and fits; a name without wildcards is asked for, not listed."""
    where, names = f"{name}/{folder}".rstrip("/"), list[str]()
    with _answers(where), contextlib.suppress(FileNotFoundError):
        if any(letter in pattern for letter in "*?["):
            found = system().ls(where, detail=False)
            names = [path.rstrip("/").rpartition("/")[2] for path in found if path.strip("/") != where]
        elif system().exists(f"{where}/{pattern}"):
            names = [pattern]
    return [f"{folder}/{one}".lstrip("/") for one in names if fnmatch.fnmatchcase(one, pattern)]


def problem(name: str) -> str | None:
    """What is wrong with a folder of a bucket that a run is to write to: it is written to, and cleared again."""
    probe = f"{name}/.probe-{uuid.uuid4().hex[:8]}"
    try:
        good = _keeps_conditions(probe)
        remove([probe])
    except (OSError, ImportError) as error:
        said = " ".join(str(error).split())
        return (
            f"root: expected a bucket that can be written at {SCHEME}{name}, got {type(error).__name__}: {said}; check "
            "the name, AWS_ENDPOINT_URL, and AWS_ACCESS_KEY_ID or what else holds the login"
        )
    if not good:
        return (
            "root: expected a store that refuses the second of two writers, and no other, by If-None-Match and "
            f"If-Match, got one at {SCHEME}{name} that does not; update the store, or set root=FOLDER"
        )
    return None


def _keeps_conditions(name: str) -> bool:
    """Whether a put is refused if its condition does not hold, and only then; `name` is an object to try it with."""
    first = put_if(name, b"first", None)
    if first is None or put_if(name, b"another", None) is not None:
        return False
    return put_if(name, b"second", first) is not None and put_if(name, b"third", first) is None
