"""The pixel-level meta-learner by loops and by hand: draws, prototypes, both losses, votes, several ways, learning."""

import pytest
import torch

from fss.heads.parts import capabilities, losses
from fss.heads.pixel_meta import Cells, distances, drawn, prototypes, votes
from fss.training.step import MetaModule
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import episode, head


def cells(seed: int = 0, number: int = 14, sides: int = 2, shots: int = 1) -> Cells:
    """Two episodes of random cells, some of which are void."""
    g = torch.Generator().manual_seed(seed)
    names = torch.randint(0, sides + 1, (2, 1, number), generator=g)
    mine = names == torch.arange(sides)[:, None]
    return Cells(torch.randn(2, number, 3, generator=g), mine, torch.full((2,), shots), shots)


@pytest.mark.parametrize(("k", "shots", "sides"), [(1, 1, 2), (3, 1, 2), (2, 3, 2), (50, 1, 2), (4, 1, 4)])
def test_votes_equal_a_loop(k, shots, sides):
    """With k = 50 every cell that is not void votes."""
    support = cells(k, 16, sides, shots)
    query = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(9))
    found = votes(query, support, k)
    for b in range(2):
        sizes = support.sides[b].sum(dim=1)
        known = [s for s in range(16) if support.sides[b, :, s].any()]
        for q in range(5):
            near = sorted(known, key=lambda s: float((query[b, q] - support.tokens[b, s]).norm()))[: k * shots]
            apart = [float((query[b, q] - support.tokens[b, s]).norm()) for s in near]
            worth = [1 + 0.01 * (1 - one / apart[-1]) for one in apart]
            counted = [
                sum(w for s, w in zip(near, worth, strict=True) if support.sides[b, n, s]) / max(int(sizes[n]), 1)
                for n in range(sides)
            ]
            expected = torch.tensor(counted) / sum(counted)
            assert torch.allclose(found[b, :, q], expected, atol=1e-6)


def test_a_large_side_does_not_win_by_its_size():
    """Of four neighbours one is of the one foreground cell, three of nine background ones: nearly 1 to 3/9."""
    tokens = torch.tensor([1.0, 0.5, 0.6, 0.7, 5, 5, 5, 5, 5, 5]).view(1, 10, 1)
    sides = torch.ones(1, 2, 10, dtype=torch.bool)
    sides[0, 0, 0], sides[0, 1, 1:] = False, False
    found = votes(torch.zeros(1, 1, 1), Cells(tokens, sides, torch.tensor([1]), 1), 4)
    assert torch.allclose(found[0, :, 0], torch.tensor([1 / 3, 1]) / (4 / 3), atol=0.01)


def test_nobody_to_ask_votes_for_nothing():
    support = cells()._replace(sides=torch.zeros(2, 2, 14, dtype=torch.bool), shots=torch.zeros(2, dtype=torch.int64))
    assert votes(torch.zeros(2, 4, 3), support, 3).abs().max() == 0


def test_the_answer_is_the_vote_of_encoded_cells():
    """Members as everywhere: at least half of a cell, or the largest share that there is."""
    module, (query, support, masks) = head("pixel_meta", steps=2), episode(shots=2)
    q, s = module.embed(query)["tokens"], [module.embed({k: v[:, i] for k, v in support.items()}) for i in range(2)]
    tokens = torch.cat([one["tokens"].flatten(2).transpose(1, 2) for one in s], dim=1)
    flat = masks.transpose(1, 2).flatten(2)
    inside = (flat >= 0.5) | ((flat > 0) & (flat == flat.amax(dim=2, keepdim=True)))
    shares = votes(q.flatten(2).transpose(1, 2), Cells(tokens, inside, torch.full((3,), 2), 2), 3)
    expected = 10 * module.gain.share * shares.view(3, 2, 5, 5)
    assert torch.allclose(module(query, support, masks), expected, atol=1e-5)


@pytest.mark.parametrize("random", [True, False])
def test_draws_are_of_equal_numbers_without_repetition(random):
    g = torch.Generator().manual_seed(1)
    tokens = torch.arange(2 * 3 * 30.0).view(2, 3, 30, 1)
    names = torch.randint(0, 4, (2, 3, 1, 30), generator=g)  # 2 and 3 are void
    sides = names == torch.arange(2)[:, None]
    sides[1, 2, 1] = False
    sides[1, 2, 1, 17] = True
    with torch.random.fork_rng(devices=[]):
        (found, mine), (again, _) = (drawn(tokens, sides, 4, random) for _ in range(2))
    assert torch.equal(found, again) != random
    assert found.shape == (2, 3, 8, 1)
    for b in range(2):
        for shot in range(3):
            for side in range(2):
                chosen = found[b, shot, mine[b, shot, side], 0].tolist()
                allowed = tokens[b, shot, sides[b, shot, side], 0].tolist()
                assert len(set(chosen)) == len(chosen) == min(4, len(allowed))
                assert set(chosen) <= set(allowed)


def test_prototypes_and_distances_by_hand():
    """Means (1, 0) and (0, 3); the cell (4, 0) is 9 from the one and 25 from the other; void cells count nowhere."""
    tokens = torch.tensor([[[0.0, 0], [2, 0], [0, 3], [7, 7]]])
    sides = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]).bool()
    means = prototypes(Cells(tokens, sides, torch.tensor([1]), 1))
    assert torch.equal(means, torch.tensor([[[1.0, 0], [0, 3]]]))
    assert torch.allclose(distances(torch.tensor([4.0, 0]).view(1, 2, 1, 1), means).flatten(), torch.tensor([9.0, 25]))


@pytest.mark.parametrize("form", ["log_softmax", "paper"])
def test_the_prototypical_loss_equals_a_loop(form):
    """The cross-entropy of a softmax over prototypes, or Eq. 5 as printed, over the query's cells and shares."""
    module, (query, support, masks) = head("pixel_meta", loss_form=form, cells=1000), episode()
    truth = episode(seed=5)[2][:, 0]
    found = MetaModule(module, losses.cross_entropy, corners=False)(query, support, masks, truth)["loss_prototypes"]
    q, s = (module.embed(f)["tokens"] for f in (query, {k: v[:, 0] for k, v in support.items()}))
    total = torch.zeros(())
    for b in range(3):
        inside = [(share >= 0.5) | (share == share.max()) for share in masks[b, 0]]
        means = torch.stack([s[b][:, one].mean(dim=1) for one in inside])
        apart = (q[b][None] - means[:, :, None, None]).square().sum(dim=1)
        each = (-apart).exp() if form == "paper" else (-apart).log_softmax(dim=0)
        total = total - (each * truth[b]).sum() / truth[b].sum() / 3
    assert torch.allclose(found, total, atol=1e-4)


def test_several_ways_are_one_vote():
    """Against every neighbour listed: sides are the background of all supports and each way's things."""
    module, (query, support, masks) = head("pixel_meta", steps=2), episode(episodes=4, shots=2)
    seen, shots = module.prepare({k: v[[0, 0, 2, 2]] for k, v in query.items()}, support, masks)
    found = module.margins(seen, shots, masks, ways=2)
    assert found.shape == (2, 2, 5, 5)
    for e in range(2):
        tokens, names = [], []
        for way in range(2):
            row = shots["tokens"][2 * e + way].flatten(2).transpose(1, 2).flatten(0, 1)
            ground, thing = masks[2 * e + way].transpose(0, 1).flatten(1)
            for token, b, f in zip(row, ground, thing, strict=True):
                mine = {0} if b > 0 and (b >= 0.5 or b == ground.max()) else set()
                mine |= {way + 1} if f > 0 and (f >= 0.5 or f == thing.max()) else set()
                tokens.append(token)
                names.append(mine)
        sides = torch.tensor([[n in mine for mine in names] for n in range(3)])[None]
        q = seen["tokens"][2 * e].flatten(1).T[None]
        shares = votes(q, Cells(torch.stack(tokens)[None], sides, torch.tensor([4]), 4), 3)[0]
        expected = 10 * module.gain.share * (shares[1:] - shares[:1])
        assert torch.allclose(found[e], expected.view(2, 5, 5), atol=1e-4)


@pytest.mark.parametrize("name", ["pixel_meta", "nearest"])
def test_one_way_is_the_margin_of_the_logits(name):
    module, (query, support, masks) = head(name), episode(shots=2)
    seen, shots = module.prepare(query, support, masks)
    logits = module.match(seen, shots, masks)
    found = capabilities.margins(module, seen, shots, masks, 1)
    assert torch.allclose(found[:, 0], logits[:, 1] - logits[:, 0], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"loss_form": "paper"}, {"asked": "drawn"}], ids=str)
def test_it_learns_from_tasks(options):
    """Nuisances hide the things from the untrained encoder; the trained one has projected them out."""
    before, after = learns("pixel_meta", nuisance=1.5, hidden=32, dim=8, cells=20, k=5, **options)
    assert after.iou > before.iou + 0.1
