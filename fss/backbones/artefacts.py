"""Tokens that say nothing of their place, told by their length and replaced by what lies around them.

Transformers that have no registers keep notes of the whole image in a few tokens of plain areas (Darcet et al., "Vision
Transformers Need Registers", ICLR 2024). Before the last norm these are several times as long as all others. A grid of
features has spots there: seeds of segments, and nearest cells of anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def mended(tokens: torch.Tensor, limit: float) -> torch.Tensor:
    """(B, C, h, w) tokens of which those longer than `limit` times the image's median are the mean of their neighbours.

    Of those among the eight that are not too long themselves; where none is, the mean of all such tokens of the image.
    """
    lengths = tokens.float().norm(dim=1, keepdim=True)
    typical = lengths.flatten(1).median(dim=1).values[:, None, None, None]
    kept = (lengths <= limit * typical).to(tokens.dtype)
    around, number = (F.avg_pool2d(values, 3, 1, 1, count_include_pad=False) for values in (tokens * kept, kept))
    whole = (tokens * kept).sum(dim=(2, 3), keepdim=True) / kept.sum(dim=(2, 3), keepdim=True)
    beside = torch.where(number > 0, around / number.clamp_min(1e-6), whole)
    return torch.where(kept > 0, tokens, beside)
