"""PANet's parts by hand and by loops, and that it learns."""

import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.parts.shots import aligned, cell_weights, cosine_logits, prior_mask, shot_means, shot_priors
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import CHANNELS, episode, head


def test_weighted_pooling_by_hand():
    """Shot 0: (1 + 3 * 4) / 4 with shares 1 and 3 quarters; shot 1: 8 alone; each counts half."""
    features = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]).view(1, 2, 1, 2, 2)
    share = torch.zeros(1, 2, 2, 2)
    share[0, 0, 0, 0], share[0, 0, 1, 1], share[0, 1, 1, 1] = 0.25, 0.75, 0.01
    expected = ((1 * 0.25 + 4 * 0.75) + 8) / 2
    assert shot_means(features, share).item() == pytest.approx(expected)


def test_shots_that_show_nothing_are_left_out_of_the_mean():
    _, support, masks = episode(shots=3)
    share = masks[:, :, 1].clone()
    share[:, 1] = 0
    alone = shot_means(support["mid"][:, ::2], share[:, ::2])
    assert torch.allclose(shot_means(support["mid"], share), alone, atol=1e-6)
    assert shot_means(support["mid"], 0 * share).abs().max() == 0


def test_weights_of_an_episodes_cells_sum_to_one():
    masks = episode(shots=2)[2]
    weights = cell_weights(masks)
    assert torch.allclose(weights.sum((1, 3, 4)), torch.ones(3, 2))
    assert torch.allclose(weights.sum((3, 4)), torch.full((3, 2, 2), 0.5))


def test_priors_are_the_mean_of_each_shots_own():
    query, support, masks = episode(shots=3)
    share = masks[:, :, 1].clone()
    share[0, 2] = 0
    one = [prior_mask(query["high"], support["high"][:, [k]], share[:, [k]]) for k in range(3)]
    expected = torch.stack(one).mean(0)
    expected[0] = (one[0][0] + one[1][0]) / 2
    assert torch.allclose(shot_priors(query["high"], support["high"], share), expected, atol=1e-6)
    assert shot_priors(query["high"], support["high"], 0 * share).abs().max() == 0


def test_the_cosine_readout_by_hand():
    tokens = torch.tensor([[3.0, 0.0], [4.0, 2.0]]).view(1, 2, 1, 2)
    prototypes = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]])
    expected = torch.tensor([[0.6, 0.0], [0.8, 1.0]]).view(1, 2, 1, 2)
    assert torch.allclose(cosine_logits(tokens, prototypes), 20 * expected)


def test_without_projection_one_shot_is_the_prototype_readout():
    inputs = episode()
    bare = heads.build("panet", {"project": False}, CHANNELS, corners=True)
    floor = heads.build("prototype", {"levels": ["mid", "high"]}, CHANNELS, corners=True)
    assert list(bare.parameters()) == []
    assert torch.allclose(bare(*inputs), floor(*inputs), atol=1e-4)


def test_a_projection_wide_enough_starts_at_the_readout():
    inputs = episode(shots=2)
    bare, wide = (
        heads.build("panet", {"project": False}, CHANNELS, corners=True),
        heads.build("panet", {"dim": 17}, CHANNELS, corners=True),
    )
    assert torch.allclose(bare(*inputs), wide(*inputs), atol=1e-4)


def test_there_must_be_something_to_learn():
    module = heads.build("panet", {"project": False}, CHANNELS, corners=True)
    for ask in (lambda: module.learn(*episode()), module.silence):
        with pytest.raises(ValueError, match=r"something to learn, got project=false .*set model.options.project=true"):
            ask()


def test_alignment_equals_loops():
    """Prototypes of the query by its predicted mask, then the cosine of every support cell to them."""
    module, (query, support, masks) = head("panet", steps=2), episode(shots=2)
    logits, (part,) = module.learn(query, support, masks)
    assert (part.name, part.weight) == ("align", 1.0)
    q = module.embed(query)["tokens"]
    for b in range(3):
        predicted = logits[b].argmax(0)
        sides = [torch.stack([q[b, :, i, j] for i in range(5) for j in range(5) if predicted[i, j] == side]).mean(0)
                 for side in range(2)]  # fmt: skip
        for k in range(2):
            s = module.embed({level: v[b, [k]] for level, v in support.items()})["tokens"][0]
            cosines = torch.stack([F.cosine_similarity(s, side[:, None, None], dim=0) for side in sides])
            assert torch.allclose(part.logits[2 * b + k], 20 * cosines, atol=1e-4)
            assert torch.equal(part.target[2 * b + k], masks[b, k])


def test_alignment_asks_nothing_where_either_side_shows_nothing():
    query, support, masks = episode(shots=2)
    masks[0, 1, 1] = 0
    predicted = torch.stack([torch.zeros(3, 5, 5), torch.ones(3, 5, 5)], 1)
    predicted[2] = predicted[2].flip(0)
    target = aligned(query["mid"], support["mid"], predicted, masks)[1].unflatten(0, (3, 2))
    expected = masks.clone()
    expected[0, 1], expected[2] = 0, 0
    assert torch.equal(target, expected)


def test_no_gradient_flows_into_the_predicted_mask():
    query, support, masks = episode()
    predicted = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens = query["mid"].requires_grad_()
    aligned(tokens, support["mid"], predicted, masks)[0].sum().backward()
    assert predicted.grad is None
    assert tokens.grad.abs().max() > 0


def test_it_learns():
    before, after = learns("panet", dim=16, nuisance=3)
    assert after.loss < 0.1 * before.loss
    assert before.iou < 0.5
    assert after.iou > 0.9
