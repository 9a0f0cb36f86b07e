"""Shards: deterministic WebDataset tars made and read in memory, without ever executing what is in them.

A sample is a key and its members, `key.jpg`, `key.json`, ...; keys are ours ([0-9a-z_]+), so that no user's file name
can collide, hide a sample or leave the folder. Any WebDataset reader can read the result.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

KEY = re.compile(r"[0-9a-z_]+")
_END = bytes(2 * tarfile.BLOCKSIZE)
#: The header of a file without a name and a size, and what its bytes add up to with blanks for the checksum.
_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_BLANK_SUM = sum(_BLANK[:124]) + sum(_BLANK[135:148]) + 8 * ord(" ") + sum(_BLANK[156:])
Sample = tuple[str, dict[str, bytes]]


def pack(samples: Iterable[Sample]) -> bytes:
    """Write samples, (key, {extension: bytes}), into one tar. Equal samples give equal bytes: no times, no owners.

    The bytes are those of `tarfile` with USTAR_FORMAT, which takes several times as long.

    Raises:
        ValueError: for a key outside [0-9a-z_]+ or one that was used before; for a name of more than 100 characters or
            8 GiB of data, which do not fit a header.
    """
    parts: list[bytes] = []
    length = 0
    seen: set[str] = set()
    for key, members in samples:
        if not KEY.fullmatch(key) or key in seen:
            raise ValueError(f"expected a new key of [0-9a-z_]+, got {key!r}{' again' if key in seen else ''}")
        seen.add(key)
        for extension, data in members.items():
            padding = -len(data) % tarfile.BLOCKSIZE
            parts += (_header(f"{key}.{extension}", len(data)), data, bytes(padding))
            length += tarfile.BLOCKSIZE + len(data) + padding
    length += len(_END)
    return b"".join([*parts, _END, bytes(-length % tarfile.RECORDSIZE)])


def _header(name: str, size: int) -> bytes:
    text, digits = name.encode("ascii"), b"%011o" % size
    if len(text) > tarfile.LENGTH_NAME or len(digits) > 11:
        raise ValueError(f"expected names of up to 100 characters and less than 8 GiB, got {name!r} of {size} bytes")
    block = bytearray(_BLANK)
    block[: len(text)] = text
    block[124:135] = digits
    block[148:154] = b"%06o" % (_BLANK_SUM + sum(text) + sum(digits))
    return bytes(block)


def unpack(data: bytes) -> Iterator[Sample]:
    """Yield the samples of a tar in order. Only ordinary files with plain names are looked at.

    Raises:
        ValueError: for a truncated or damaged tar, a link, a device, a path, a member that comes twice, or a key that
            comes back later.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            yield from _group(tar)
            # Where tarfile cannot read a header it stops as if the tar ended; a whole one ends in two blocks of zeros.
            if data[tar.offset : tar.offset + len(_END)] != _END:
                raise tarfile.ReadError(f"no readable header and no end of the tar at byte {tar.offset}")
    except tarfile.TarError as error:
        raise ValueError(f"expected a whole tar of samples, got a damaged one ({error})") from error


def index(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the members of a tar lie: name -> (offset, size) in bytes, in order.

    Raises:
        ValueError: as `unpack`.
    """
    names = [f"{key}.{extension}" for key, members in unpack(data) for extension in members]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {name: (info.offset_data, info.size) for name, info in zip(names, tar, strict=True)}


def _group(tar: tarfile.TarFile) -> Iterator[Sample]:
    current: str | None = None
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    for info in tar:
        key, _, extension = info.name.partition(".")
        if not info.isreg() or not KEY.fullmatch(key) or not extension:
            raise ValueError(f"expected ordinary members named key.extension, got {info.name!r}")
        if key != current:
            if current is not None:
                yield current, members
            if key in seen:
                raise ValueError(f"members of sample {key!r} are not next to each other")
            seen.add(key)
            current, members = key, {}
        if extension in members:
            raise ValueError(f"expected every member once, got {info.name!r} twice")
        file = tar.extractfile(info)
        assert file is not None
        members[extension] = file.read()
    if current is not None:
        yield current, members


def dumps(value: Any) -> bytes:
    """JSON bytes with sorted keys: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()
