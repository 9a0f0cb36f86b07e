"""What is wrong with the bytes of an image."""

from __future__ import annotations


class BadImageError(ValueError):
    """Bytes that cannot become an RGB image; `reason` is one word for the ledger, the message says more."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
