"""Content that vouches for itself: what is read back later carries the sha256 of the rest, so that damage shows.

Whoever reads sealed content gets exactly what was sealed, or None: for a file that was cut, emptied, or changed in one
bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fss.shards import dumps, sha256

_SIZE = 32


def seal(data: bytes) -> bytes:
    """`data` behind its sha256."""
    return bytes.fromhex(sha256(data)) + data


def unseal(sealed: bytes) -> bytes | None:
    """What `seal` got; None if it is not that any more."""
    data = sealed[_SIZE:]
    return data if sealed[:_SIZE].hex() == sha256(data) else None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value`, as JSON keeps it, with one more key: `seal`, the sha256 of the rest."""
    plain = {key: one for key, one in json.loads(dumps(value)).items() if key != "seal"}
    return {**plain, "seal": sha256(dumps(plain))}


def unsealed(data: bytes | str) -> dict[str, Any] | None:
    """What `sealed` got, of its JSON text; None if it is not that any more, or was never sealed."""
    try:
        value = json.loads(data)
        seal_of = value.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError):  # ValueError: UnicodeDecodeError too
        return None
    return dict(value) if seal_of == sha256(dumps(value)) else None
