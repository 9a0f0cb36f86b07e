"""The parts of the UMTFSS head by hand and by loops."""

import pytest
import torch
import torch.nn.functional as F

from fss.models import umtfss
from tests.fss.models.test_heads import episode, head


def test_the_masked_average_by_hand():
    features = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]).view(1, 2, 1, 2, 2)
    share = torch.zeros(1, 2, 2, 2)
    share[0, 0, 0, 0], share[0, 1, 1, 1], share[0, 1, 0, 0] = 1, 0.5, 0.5
    assert umtfss.masked_average(features, share).item() == pytest.approx((1 + 0.5 * 8 + 0.5 * 5) / 2)


def test_an_empty_shot_weighs_nothing():
    _, support, masks = episode(shots=2)
    share = masks[:, :, 1].clone()
    share[:, 1] = 0
    both = umtfss.masked_average(support["mid"], share)
    assert torch.allclose(both, umtfss.masked_average(support["mid"][:, :1], share[:, :1]))
    assert umtfss.masked_average(support["mid"], share * 0).abs().max() == 0


def test_the_prior_mask_by_hand():
    query = torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 1.0]]).view(1, 2, 1, 3)
    support = torch.tensor([[3.0, 0.0], [0.0, 2.0]]).view(1, 1, 2, 1, 2)
    share = torch.tensor([0.9, 0.1]).view(1, 1, 1, 2)  # only the first support cell is foreground
    assert torch.allclose(umtfss.prior_mask(query, support, share), torch.tensor([1.0, 0.6, 0.0]).view(1, 1, 1, 3))


def test_the_prior_mask_equals_a_loop():
    query, support, masks = episode(shots=2)
    share = masks[:, :, 1]
    found = umtfss.prior_mask(query["high"], support["high"], share)
    for b in range(3):
        tokens = [support["high"][b, k, :, i, j] for k in range(2) for i in range(5) for j in range(5)]
        inside = [t for t, w in zip(tokens, share[b].flatten(), strict=True) if w >= 0.5]
        cells = query["high"][b].flatten(1).T
        best = torch.stack([max(F.cosine_similarity(cell, t, dim=0) for t in inside) for cell in cells])
        expected = (best - best.min()) / (best.max() - best.min())
        assert torch.allclose(found[b, 0].flatten(), expected, atol=1e-4)


def test_without_a_half_the_fullest_cell_is_the_foreground():
    query, support, masks = episode()
    share = masks[:, :, 1] * 0.3
    top = (share == share.amax((1, 2, 3), keepdim=True)).float()
    found = umtfss.prior_mask(query["high"], support["high"], share)
    assert torch.equal(found, umtfss.prior_mask(query["high"], support["high"], top))


def test_the_finer_level_is_averaged_to_the_coarser():
    query, _, _ = episode()
    found = umtfss.middle_features(query)
    assert found.shape == (3, 14, 5, 5)
    mean = query["low"][1, :, 2:4, 6:8].mean((1, 2))
    assert torch.allclose(found[1, :6, 1, 3], F.normalize(mean, dim=0), atol=1e-6)
    assert torch.allclose(found[1, 6:, 1, 3], F.normalize(query["mid"][1, :, 1, 3], dim=0), atol=1e-6)


def test_tokens_not_in_use_do_not_count():
    block = head("umtfss").cross_attention[0]
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 16, generator=g), torch.randn(2, 7, 16, generator=g)
    used = torch.arange(7).expand(2, 7) < 4
    assert torch.allclose(block(x, y, used), block(x, y[:, :4]), atol=1e-6)


def test_prototypes_are_means_of_their_sides_cells():
    """With one prototype a side: the mean of the cells that have more of it, plus the side's marker."""
    module = head("umtfss", steps=2, foreground_prototypes=1, background_prototypes=1)
    g = torch.Generator().manual_seed(0)
    points = torch.randn(2, 20, 16, generator=g)
    foreground = torch.rand(2, 20, generator=g)
    shares = torch.stack([1 - foreground, foreground], 2)
    found, used = module.support_prototypes(points, shares)
    assert used.all()
    for b in range(2):
        for side in range(2):
            mean = points[b][shares[b, :, side] >= 0.5].mean(0) + module.marker[side]
            assert torch.allclose(found[b, side], mean, atol=1e-5)


def test_a_side_without_cells_has_no_prototype():
    module = head("umtfss")
    points = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([1.0, 0.0]).expand(1, 10, 2)
    _, used = module.support_prototypes(points, shares)
    assert used.shape == (1, 10)
    assert used[:, :6].any()
    assert not used[:, 6:].any()
    faint = shares.clone()
    faint[0, 3, 1] = 0.01  # the only cell with any foreground at all stands for it
    found, used = module.support_prototypes(points, faint)
    assert used[:, 6:].sum() == 1
    assert torch.allclose(found[:, 6:][used[:, 6:]][0], points[0, 3] + module.marker[1], atol=1e-6)
