"""What is wrong with the bytes of an image."""

from __future__ import annotations

import struct
import zlib

#: What decoders raise on damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, struct.error, zlib.error, EOFError, TypeError)


class BadImageError(ValueError):
    """Bytes that cannot become an RGB image; `reason` is one word for the ledger, the message says more."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def damaged(error: BaseException) -> BadImageError:
    """What an error of a decoder means; some decoders say no more than a number."""
    told = str(error) if " " in str(error) else "its pixels cannot be decoded"
    return BadImageError("truncated" if "truncated" in told.lower() else "broken", told)
