"""Which precisions this processor computes in, and what may be computed in the lower one.

Products of bfloat16 take a tenth of float32's time on processors that have them. `products_apart` says how far off
each may be. So whoever compares products need compute again only those that lie nearer to each other than that.

Letters: N and K rows, D dimensions.
"""

from __future__ import annotations

import dataclasses
import logging

import torch

logger = logging.getLogger(__name__)


#: Whether this processor multiplies matrices of bfloat16; None where torch cannot tell.
_MULTIPLIES: bool | None = None
if hasattr(torch.cpu, "get_capabilities"):
    _MULTIPLIES = any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def warn_of_slow(precision: str, device: torch.device, key: str = "precision") -> None:
    """Say so if `precision` is one that this processor can only emulate."""
    if precision == "bf16" and device.type == "cpu" and _MULTIPLIES is False:
        logger.warning("this processor has no bf16 arithmetic, emulating it is slow; set %s=fp32", key)


def coarse(values: torch.Tensor) -> torch.Tensor:
    """`values` of which nothing is learned, to be multiplied: as bfloat16 where the processor has that, else as given.

    Its products are three times as fast as float32's, and those of vectors of length 1 wrong by 0.004 at most. Values
    that a gradient passes stay as they are, and so do those of programs for other machines.
    """
    learned = torch.is_grad_enabled() and values.requires_grad
    if not _MULTIPLIES or values.device.type != "cpu" or learned or torch.compiler.is_exporting():
        return values
    return values.bfloat16()


def multiplies(device: torch.device) -> bool:
    """Whether this processor multiplies matrices of bfloat16 and adds up in float32; oneDNN, which torch asks, does."""
    return bool(_MULTIPLIES) and device.type == "cpu" and torch.backends.mkldnn.is_available()


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Of (N, D) rows, what bounds the effect of rounding them to bfloat16: (N,) float32 each, none too small."""

    lengths: torch.Tensor
    lost: torch.Tensor
    """Lengths of what rounding takes from a row."""

    @classmethod
    def of(cls, rows: torch.Tensor, rounded: torch.Tensor) -> Rounding:
        """Of (N, D) float32 rows and the same in bfloat16.

        A length in float32 is wrong by a share of (D + 2) / 2**24 at most, and by sqrt(D) / 2**63 where squares are too
        small to be told from 0. Both are added to it.
        """
        share, least = 1 + rows.shape[1] * 2.0**-23, rows.shape[1] ** 0.5 * 2.0**-62
        lengths, lost = (torch.linalg.vector_norm(one, dim=1) for one in (rows, rows - rounded))
        return cls(lengths.mul_(share).add_(least), lost.mul_(share).add_(least))


def products_apart(of_rows: Rounding, of_others: Rounding, dims: int) -> torch.Tensor:
    """(N,) float32 bounds: how far inner products of rounded rows may be from those of the float32 rows.

    They are those that `torch.mm` makes of (N, D) and (K, D) rows in bfloat16 where `multiplies` says yes. Let x and c
    be float32 rows, x' and c' the rounded ones. With x c - x' c' = (x - x') c + x' (c - c') and Cauchy and Schwarz,
    rounding the inputs changes a product by at most |x - x'| |c| + |x'| |c - c'|. Products of two bfloat16 numbers are
    exact in float32. Adding up D of them there is wrong by at most D / (2**24 - D) |x'| |c'|, in any order (Higham
    2002, section 3.1). Rounding the sum to bfloat16 takes 2**-8 of it, which is no more than |x'| |c'|. What is below
    2**-126 may be taken for 0. The bound takes the largest c; a hundredth more covers its own rounding. An infinite
    bound or NaN says nothing.
    """
    most, lost = of_others.lengths.max(), of_others.lost.max()
    ours, theirs = of_rows.lengths + of_rows.lost, most + lost
    bound = of_rows.lost * most + ours * (lost + (2.0**-8 + dims * 2.0**-23) * theirs)
    return bound.mul_(1.01).add_(dims * 2.0**-124 * (1 + ours + theirs))
