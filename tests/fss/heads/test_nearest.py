"""The nearest-pixels read-out by loops."""

import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.nearest import nearest_mean
from tests.fss.heads.test_heads import CHANNELS, episode


@pytest.mark.parametrize(("k", "shots"), [(1, 1), (5, 1), (3, 2), (40, 2)])
def test_the_readout_equals_a_loop(k, shots):
    """With k = 40 and two shots each side has fewer cells than neighbours are asked for."""
    query, support, masks = episode(shots=shots)
    found = heads.build("nearest", {"k": k, "scale": 10.0}, CHANNELS, corners=True)(query, support, masks)
    q, s = F.normalize(query["high"], dim=1), F.normalize(support["high"], dim=2)
    for b in range(3):
        for side, enough in enumerate([lambda share: share > 0.5, lambda share: share >= 0.5]):
            places = [(i, y, x) for i in range(shots) for y in range(5) for x in range(5)]
            cells = [s[b, i, :, y, x] for i, y, x in places if enough(masks[b, i, side, y, x])]
            for y, x in ((0, 0), (2, 3), (4, 4)):
                cosines = sorted((float(q[b, :, y, x] @ cell) for cell in cells), reverse=True)[: k * shots]
                assert float(found[b, side, y, x]) == pytest.approx(10 * sum(cosines) / len(cosines), abs=1e-4)


def test_a_side_without_majority_cells_falls_back_to_its_mean():
    query, support, masks = episode()
    masks[:, :, 1] = masks[:, :, 1].clamp(max=0.4)
    found = heads.build("nearest", {}, CHANNELS, corners=True)(query, support, masks)
    mean = heads.build("prototype", {}, CHANNELS, corners=True)(query, support, masks)
    assert torch.allclose(found[:, 1], mean[:, 1], atol=1e-5)
    assert not torch.allclose(found[:, 0], mean[:, 0], atol=0.1)


def test_opposite_cells_count_as_neighbours():
    """A cosine of -1 is a value, not a gap."""
    cosines = torch.tensor([[[-1.0, -1.0, 0.5]]])
    members = torch.tensor([[True, True, False]])
    assert nearest_mean(cosines, members, torch.tensor([3]), torch.zeros(1, 1), 3).item() == -1
