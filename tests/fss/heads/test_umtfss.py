"""The parts of the UMTFSS head by hand and by loops."""

import pytest
import torch
import torch.nn.functional as F

from fss.heads import umtfss
from fss.heads.parts.attention import sine_places
from fss.heads.parts.shots import prior_mask
from fss.heads.parts.tokens import middle_features
from tests.fss.heads.test_heads import episode, head, train_step, without_gradient

VARIANTS = ["ours", "paper", "released"]


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
    assert torch.allclose(prior_mask(query, support, share), torch.tensor([1.0, 0.6, 0.0]).view(1, 1, 1, 3))


def test_the_prior_mask_equals_a_loop():
    query, support, masks = episode(shots=2)
    share = masks[:, :, 1]
    found = prior_mask(query["high"], support["high"], share)
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
    found = prior_mask(query["high"], support["high"], share)
    assert torch.equal(found, prior_mask(query["high"], support["high"], top))


def test_the_finer_level_is_averaged_to_the_coarser():
    query, _, _ = episode()
    found = middle_features(query)
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
    found, used = module.summary(points, shares)
    assert used.all()
    for b in range(2):
        for side in range(2):
            mean = points[b][shares[b, :, side] >= 0.5].mean(0) + module.summary.marker[side]
            assert torch.allclose(found[b, side], mean, atol=1e-5)


def test_a_side_without_cells_has_no_prototype():
    module = head("umtfss")
    points = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([1.0, 0.0]).expand(1, 10, 2)
    _, used = module.summary(points, shares)
    assert used.shape == (1, 10)
    assert used[:, :6].any()
    assert not used[:, 6:].any()
    faint = shares.clone()
    faint[0, 3, 1] = 0.01  # the only cell with any foreground at all stands for it
    found, used = module.summary(points, faint)
    assert used[:, 6:].sum() == 1
    assert torch.allclose(found[:, 6:][used[:, 6:]][0], points[0, 3] + module.summary.marker[1], atol=1e-6)


@pytest.mark.parametrize("residual", ["none", "smoothed"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "vanilla"},
        {"shots": "average"},
        {"maps": True, "marker": True, "blocks": 3},
        {"maps": False, "marker": False, "blocks": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_every_variant_gets_a_gradient(variant, options, residual):
    """The released code leaves a quarter of its parameters without one."""
    module = head("umtfss", variant=variant, residual=residual, **options)
    for _ in range(1 if residual == "none" else 2):
        train_step(module)
    assert without_gradient(module) == []


def test_the_released_variant_has_no_marker_and_separate_reductions():
    module = head("umtfss", variant="released")
    assert not any("marker" in name for name, _ in module.named_parameters())
    assert len(module.reduce) == len(module.self_attention) == 2


def test_the_self_attended_support_feeds_the_prototypes():
    """In the released code its result is dropped."""
    module, attended, summed = head("umtfss", steps=2, blocks=2), [], []
    for block in module.self_attention:
        block.register_forward_hook(lambda _, __, found: attended.append(found))
    module.summary.register_forward_pre_hook(lambda _, given: summed.append(given[0]))
    module(*episode(shots=2))
    for support, given in zip(attended[:2], summed, strict=True):
        assert torch.equal(support.reshape(given.shape), given)


def test_a_side_with_few_tokens_is_taken_raw():
    """Four equal tokens of the foreground fall into one cluster, unless they are taken raw."""
    points = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(0))
    points[:, 3:7] = points[:, 3:4]
    foreground = torch.zeros(1, 20)
    foreground[:, 3:7] = 1
    shares = torch.stack([1 - foreground, foreground], 2)
    clustered, used = head("umtfss", marker=False).summary(points, shares)
    assert used[:, 6:].sum() == 1
    raw, used = head("umtfss", marker=False, raw_prototypes=True).summary(points, shares)
    assert used[:, 6:].all()
    assert torch.equal(raw[:, 6:], points[:, 3:7])
    assert torch.equal(raw[:, :6], clustered[:, :6])  # 16 tokens of the background are too many
    unit, used = head("umtfss", marker=False, unit_prototypes=True).summary(points, shares)
    assert torch.allclose(unit, F.normalize(clustered, dim=2))
    assert torch.allclose(unit.norm(dim=2), used.float())


def test_vanilla_attention_asks_every_token_that_is_not_void():
    module = head("umtfss", steps=2, attention="vanilla")
    points = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]]])
    found, used = module.summary(points, shares)
    background, foreground = module.summary.marker
    assert used.tolist() == [[True, True, False]]
    assert torch.allclose(found[0, 0], points[0, 0] + background)
    assert torch.allclose(found[0, 1], points[0, 1] + 0.25 * background + 0.75 * foreground)


@pytest.mark.parametrize("variant", VARIANTS)
def test_averaged_shots_are_the_mean_of_each_alone(variant):
    """Of those that show the thing: a distractor's logits mean nothing."""
    module, (query, support, masks) = head("umtfss", variant=variant, shots="average"), episode(shots=3)
    masks[:, 1, 1] = 0
    alone = [module(query, {k: v[:, i : i + 1] for k, v in support.items()}, masks[:, i : i + 1]) for i in (0, 2)]
    assert torch.allclose(module(query, support, masks), (alone[0] + alone[1]) / 2, atol=1e-5)
    joint = head("umtfss", variant=variant)
    assert not torch.allclose(joint(query, support, masks), module(query, support, masks), atol=1e-4)


def test_places_are_sines_of_rows_and_columns():
    places = sine_places(2, 3, 8, torch.device("cpu")).unflatten(0, (2, 3))
    pace = [1.0, 10000**-0.5]
    for row in range(2):
        for column in range(3):
            y, x = (2 * torch.pi * torch.tensor((n + 1) / length) for n, length in ((row, 2), (column, 3)))
            expected = [f(angle * p) for angle in (y, x) for f in (torch.sin, torch.cos) for p in pace]
            assert torch.allclose(places[row, column], torch.stack(expected), atol=1e-5)
    with pytest.raises(ValueError, match="expected a multiple of 4 for sine positions, got 6"):
        sine_places(2, 3, 6, torch.device("cpu"))


def test_dead_prototypes_are_those_that_no_token_chose():
    model = head("umtfss", foreground_prototypes=4, background_prototypes=6, residual="smoothed").eval()
    query, support, masks = episode(1)
    alike = {name: values[..., :1, :1].expand_as(values) for name, values in support.items()}
    masks = torch.zeros_like(masks)
    masks[:, :, 0, 1:], masks[:, :, 1, :1] = 1.0, 1.0
    assert model.diagnose(query, support, masks)["dead_prototypes"] < 0.5
    # Every token is the same but for what is merged, so that all of a side fall into one cluster: 2 of 4 + 6 are used.
    width = masks.shape[-1]
    possible = min(4, width) + 6
    assert model.diagnose(query, alike, masks)["dead_prototypes"] == pytest.approx(1 - 2 / possible)
    assert head("umtfss", attention="vanilla").diagnose(query, support, masks) == {}
