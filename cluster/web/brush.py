"""Masks as Label Studio's brush keeps them: run-length encoded bits of RGBA pixels, the format of `rle-pack`.

32 bits say how many values there are, 5 the bits of a value less one, four times 4 the bits of a length less one. Then
come blocks: a bit that says whether one value is repeated, 2 bits which of the lengths, the length less one, and the
value, or as many values as the length says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Bits of the four kinds of lengths, and of a value.
_LENGTHS, _VALUE = (3, 4, 8, 16), 8
_CHANNELS = 4


def encode(mask: np.ndarray) -> list[int]:
    """The bytes of an (H, W) uint8 mask of 0 and 1; the thing is opaque white."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    bits = [f"{_CHANNELS * flat.size:032b}{_VALUE - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTHS)]
    for value, length in zip(flat[starts].tolist(), (_CHANNELS * (ends - starts)).tolist(), strict=True):
        bits += _blocks(255 * value, length)
    return np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")).tolist()


def _blocks(value: int, length: int) -> list[str]:
    """The bits of one value that is repeated."""
    blocks = []
    while length:
        part = min(length, 2 ** _LENGTHS[-1])
        kind = next(kind for kind, size in enumerate(_LENGTHS) if part <= 2**size)
        blocks.append(f"1{kind:02b}{part - 1:0{_LENGTHS[kind]}b}{value:0{_VALUE}b}")
        length -= part
    return blocks


def decode(data: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 mask in {0, 1} of `size` (width, height): 1 where the brush is opaque.

    Raises:
        ValueError: for what is no such mask, or one of another size.
    """
    width, height = size
    try:
        bits = _Bits(data)
        number, word = bits.take(32), bits.take(5) + 1
        lengths = [bits.take(4) + 1 for _ in range(4)]
        if number != _CHANNELS * width * height:
            raise ValueError(f"{number} values")
        values = np.zeros(number, np.uint8)
        place = 0
        while place < number:
            repeats = bits.take(1)
            end = place + 1 + bits.take(lengths[bits.take(2)])
            values[place:end] = bits.take(word) if repeats else [bits.take(word) for _ in range(end - place)]
            place = end
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"rle: expected a brush's mask of {width}x{height}, got {error}") from error
    return (values.reshape(height, width, _CHANNELS)[..., 3] >= 128).astype(np.uint8)


class _Bits:
    """Numbers of any length, one after the other."""

    def __init__(self, data: Sequence[int]):
        self._bits = "".join(f"{byte:08b}" for byte in np.array(data, np.uint8).tolist())
        self._place = 0

    def take(self, number: int) -> int:
        """The next `number` bits; ValueError where there are no more."""
        start, self._place = self._place, self._place + number
        if self._place > len(self._bits):
            raise ValueError("one that ends too early")
        return int(self._bits[start : self._place], 2)
