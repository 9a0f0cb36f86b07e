"""Consistency over two views: where a view's cells lie, and features that are known to follow content or place."""

import pytest
import torch
import torch.nn.functional as F

from fss.evaluation.consistency import CHANGES, consistency, places
from fss.imaging.images import STD
from fss.tasks import augment, views
from fss.tasks.views import View

SIDE, PHOTOS, LOOKS = 8, 6, 12


@pytest.mark.parametrize(("side", "corners"), [(9, True), (8, False)])
def test_cells_of_a_view_lie_where_the_photo_shows_the_same(side, corners):
    """A photo whose pixels say where they are, looked at in the middle of cells."""
    across, down = torch.meshgrid(torch.linspace(0, 1, 257), torch.linspace(0, 1, 257), indexing="xy")
    photo = torch.stack([across, down, 0 * down])
    shares = torch.arange(side) / (side - 1) if corners else (torch.arange(side) + 0.5) / side
    pixels = (shares * 256).round().long()
    plain = augment.images(photo[None], [View()])[0]
    for number in range(2, 6):
        view = views.draw(0, "photo", number, views.Augment(crop=CHANGES.crop, rotation=0, colour=0, blur=0))
        shown = augment.images(photo[None], [view])[0]
        mine, theirs = (one[:2, pixels][:, :, pixels].flatten(1) for one in (plain, shown))
        apart = (mine[:, places(view, side, corners)] - theirs).abs() * torch.tensor(STD[:2])[:, None]
        assert apart.max() <= 0.5 / (side - corners) + 0.01


def scene(seed: int):
    """(PHOTOS, SIDE * SIDE) looks, and the same seen again in the mirror: what lies at `seen` of each photo."""
    looks = torch.randint(LOOKS, (PHOTOS, SIDE * SIDE), generator=torch.Generator().manual_seed(seed))
    seen = places(View(flip=True), SIDE, False).expand(PHOTOS, -1)
    return looks, looks.gather(1, seen), seen


def grids(rows: torch.Tensor) -> torch.Tensor:
    return rows.transpose(1, 2).unflatten(2, (SIDE, SIDE))


def test_features_of_content_are_consistent_and_those_of_place_are_not():
    looks, again, seen = scene(0)
    codes = torch.randn(LOOKS, 16, generator=torch.Generator().manual_seed(1))
    place = torch.randn(SIDE * SIDE, 16, generator=torch.Generator().manual_seed(2)).expand(PHOTOS, -1, -1)
    assert consistency(grids(codes[looks]), grids(codes[again]), seen) == 1.0
    assert consistency(grids(place), grids(place), seen) == 0.0
    little, much = (
        consistency(grids(codes[looks] + share * place), grids(codes[again] + share * place), seen)
        for share in (0.2, 1.0)
    )
    assert 1.0 > little > much


def test_the_mean_cell_is_that_of_the_photos():
    looks, again, seen = scene(3)
    codes = torch.randn(LOOKS, 4, generator=torch.Generator().manual_seed(4)) + 2
    noise = torch.randn(2, PHOTOS, SIDE * SIDE, 4, generator=torch.Generator().manual_seed(5))
    first, second = (
        F.normalize(grids(codes[one] + more), dim=1) for one, more in zip((looks, again), noise, strict=True)
    )
    mean = first.mean(dim=(0, 2, 3))[:, None, None]
    centred = consistency(first, second, seen, centred=True)
    assert centred == consistency(first - mean, second - mean, seen)
    assert centred != consistency(first, second, seen)


def test_cells_that_stay_where_they_are_are_not_asked():
    """A view that changes colours alone: place would find its like again, and says nothing of what is shown."""
    looks, _, _ = scene(6)
    codes = torch.randn(LOOKS, 16, generator=torch.Generator().manual_seed(7))
    still = torch.arange(SIDE * SIDE).expand(PHOTOS, -1)
    assert consistency(grids(codes[looks]), grids(codes[looks]), still) == 0.0
