"""Whether features follow what a cell shows, told by two views of photos and no label.

A cell is seen twice: in its photo, and in a view that is enlarged, mirrored, recoloured and blurred by chance. Each
time its nearest cell of all other photos is looked up. Features that mind place, side, size or colour find another one
the second time; those that tell nothing apart find any. The share that finds the same one, or one beside it, is the
consistency. Cells that a view hardly moves are not asked: features of nothing but place would find theirs. It compares
levels of a backbone; how far to trust it is measured in `benchmarks/levels.py`.

Letters: P photos, C channels, n x n grid, N = n n cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fss.tasks.views import Augment, View

#: How the second view is changed; it is not turned, so that all of it lies in the photo.
CHANGES = Augment(crop=0.3, rotation=0.0, colour=0.4, blur=0.5, gray=0.5)
#: Cells of a photo that are looked up, about.
_CELLS = 24


def places(view: View, side: int, corners: bool) -> torch.Tensor:
    """(N,) int64: the cell of the photo that shows what a cell of the view does; `corners` as of `fss.grid`."""
    numbers = torch.arange(side, dtype=torch.float64)
    centres = 2 * numbers / (side - 1) - 1 if corners else (2 * numbers + 1) / side - 1
    down, across = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([across, down, torch.ones_like(down)], dim=2) @ torch.from_numpy(view.affine()).T
    shares = (points + 1) / 2
    cells = (shares * (side - 1)).round() if corners else (shares * side).floor()
    columns, rows = cells.long().clamp(0, side - 1).flatten(0, 1).unbind(1)
    return rows * side + columns


def consistency(photos: torch.Tensor, again: torch.Tensor, seen: torch.Tensor, *, centred: bool = False) -> float:
    """Share in [0, 1] of moved cells with the same nearest cell in other photos, or one beside it, by both views.

    Args:
        photos: (P, C, n, n) features of two photos or more.
        again: the same of their views.
        seen: (P, N) `places` of the views' cells.
        centred: whether the mean cell of all photos is taken off first.
    """
    side = photos.shape[-1]
    first, second = F.normalize(photos.flatten(2), dim=1), F.normalize(again.flatten(2), dim=1)
    if centred:
        mean = first.mean(dim=(0, 2))[:, None]
        first, second = F.normalize(first - mean, dim=1), F.normalize(second - mean, dim=1)
    bank = first.transpose(0, 1).flatten(1)
    asked = torch.arange(0, side * side, max(1, side * side // _CELLS))
    same = []
    for own in range(len(first)):
        there = seen[own, asked]
        moved = ((asked // side - there // side).abs() > 1) | ((asked % side - there % side).abs() > 1)
        mine, theirs = second[own][:, asked[moved]], first[own][:, there[moved]]
        same.append(_close(_nearest(mine, bank, own, side), _nearest(theirs, bank, own, side)))
    found = torch.cat(same).double()
    return float(found.mean()) if len(found) else 0.0


def _nearest(cells: torch.Tensor, bank: torch.Tensor, own: int, side: int) -> torch.Tensor:
    """(3, q): photo, row and column of those of (C, P N) cells that are nearest to (C, q) ones; none of photo `own`."""
    cosines = cells.T @ bank
    cosines[:, own * side * side : (own + 1) * side * side] = -2.0
    found = cosines.argmax(dim=1)
    return torch.stack([found // side**2, found % side**2 // side, found % side])


def _close(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(q,) bool: whether (3, q) cells are of the same photo, and the same or neighbours."""
    apart = (first - second).abs()
    return (apart[0] == 0) & (apart[1:] <= 1).all(dim=0)
