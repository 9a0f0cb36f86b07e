"""The read-out that looks up regions of the corpus: by hand, on tokens of four directions."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from fss import heads
from tests.fss.heads.test_heads import CHANNELS, OPTIONS, episode, head

A, B, GROUND, OTHER = torch.eye(4)
"""Two looks of a thing, what is around it, and something else."""
WEIGHTLESS = {"levels": ["high"], "steps": 0, "own": 0.0, "scale": 1.0}


def made(**options):
    return heads.build("corpus_readout", WEIGHTLESS | options, {"high": 4}, corners=True).eval()


def image(*cells):
    """Features (1, 4, 1, n) of an image whose cells are these tokens."""
    return {"high": torch.stack(cells, dim=1)[None, :, None]}


def shown(*cells):
    """The same as the one support of one episode, and its masks: the first cell is the thing."""
    inside = torch.zeros(1, 1, 1, 1, len(cells))
    inside[..., 0] = 1
    return {"high": image(*cells)["high"][None]}, torch.cat([1 - inside, inside], dim=2)


def regions(*pairs):
    """Rows of an index, of (background, foreground)."""
    return torch.stack([torch.stack(pair) for pair in pairs]).numpy()


def margin(module, query, support, masks):
    logits = module(query, support, masks)
    return (logits[:, 1] - logits[:, 0]).flatten()


def test_without_an_index_and_itself_it_is_the_smoothed_readout():
    query, support, masks = episode(shots=2)
    plain = heads.build("smoothed", {}, CHANNELS, corners=True)
    module = heads.build("corpus_readout", {"index_size": 0, "own": 0.0}, CHANNELS, corners=True)
    torch.testing.assert_close(module(query, support, masks), plain(query, support, masks))


def test_alike_regions_bring_another_look_of_the_thing():
    """The support shows look A; of the regions like A one has look B too, and the query shows B alone."""
    query, (support, masks) = image(B, GROUND, OTHER), shown(A, GROUND)
    alone = margin(made(index_size=0), query, support, masks)
    torch.testing.assert_close(alone, torch.tensor([0.0, -1.0, 0.0]))
    module = made(index_size=2, neighbours=1, corpus=1.0)
    both = F.normalize(A + B, dim=0)
    module.fill(regions((GROUND, both), (A, OTHER)))
    foreground = F.normalize(A + both, dim=0)
    expected = torch.stack([foreground @ B, -GROUND @ GROUND, torch.tensor(0.0)])
    torch.testing.assert_close(margin(module, query, support, masks), expected, atol=1e-3, rtol=0)


def test_several_regions_join_by_their_mean_and_their_surroundings_too():
    module = made(index_size=3, neighbours=2, corpus=0.5)
    module.fill(regions((OTHER, A), (B, GROUND), (GROUND, F.normalize(A + B, dim=0))))
    query, (support, masks) = image(A, B, GROUND, OTHER), shown(A, GROUND)
    foreground = F.normalize(A + 0.5 * (A + F.normalize(A + B, dim=0)) / 2, dim=0)
    background = F.normalize(GROUND + 0.5 * (OTHER + GROUND) / 2, dim=0)
    torch.testing.assert_close(margin(module, query, support, masks), foreground - background, atol=1e-3, rtol=0)


def test_the_querys_own_sure_cells_join():
    """Two cells are on the foreground's side, by 1 and by the root of a half; one on the other by 1; one on neither."""
    both = F.normalize(A + B, dim=0)
    query, (support, masks) = image(A, both, GROUND, OTHER), shown(A, GROUND)
    foreground = F.normalize(A + 2 * F.normalize(A + 0.5**0.5 * both, dim=0), dim=0)
    cells = torch.stack([A, both, GROUND, OTHER])
    found = margin(made(index_size=0, own=2.0), query, support, masks)
    torch.testing.assert_close(found, cells @ (foreground - GROUND))


def test_several_supports_need_others_less():
    """What joins weighs half beside two supports that show the thing, whatever a third does not show."""
    module, single = made(index_size=1, corpus=1.0, neighbours=1), made(index_size=1, corpus=0.5, neighbours=1)
    for one in (module, single):
        one.fill(regions((OTHER, B)))
    query, (support, masks) = image(A, B, GROUND, OTHER), shown(A, GROUND)
    thrice = {"high": support["high"].repeat(1, 3, 1, 1, 1)}
    shares = torch.cat([masks, masks, torch.zeros_like(masks)], dim=1)
    torch.testing.assert_close(module(query, thrice, shares), single(query, support, masks))


def test_rows_of_an_index_are_the_prototypes_of_a_support():
    module, (features, masks) = made(index_size=1), shown(A, B, GROUND)
    rows = module.prototypes(module.embed({"high": features["high"][0]}), masks[0])
    torch.testing.assert_close(rows, torch.stack([F.normalize(B + GROUND, dim=0), A])[None])


def test_an_index_goes_through_a_file():
    module = head("corpus_readout")
    other = heads.build("corpus_readout", OPTIONS["corpus_readout"], CHANNELS, corners=True).eval()
    with pytest.raises(RuntimeError, match=r"expected a head whose index is filled: load the one that jobs.index"):
        other(*episode())
    other.load_state_dict(load(save(module.state_dict())))
    assert torch.equal(other(*episode()), module(*episode()))


def test_an_index_that_does_not_fit_is_refused():
    for rows in (regions((A, B), (A, B)), regions((A[:3], B[:3]))):
        with pytest.raises(ValueError, match=r"expected the prototypes of at most 1 regions, .* got .*; set "):
            made(index_size=1).fill(rows)


def test_rows_that_are_not_filled_are_no_neighbours():
    """Though more neighbours are asked for than there are."""
    query, (support, masks) = image(A, B, GROUND, OTHER), shown(A, GROUND)
    roomy, full = made(index_size=4, neighbours=3), made(index_size=2, neighbours=2)
    for module in (roomy, full):
        module.fill(regions((OTHER, B), (GROUND, -A)))
    torch.testing.assert_close(roomy(query, support, masks), full(query, support, masks))
    roomy.fill(regions((OTHER, B)))
    assert not torch.equal(roomy(query, support, masks), full(query, support, masks))


def test_it_studies_the_supports_of_training_and_looks_them_up_in_answers_alone():
    """In training its index would hold the answers: it is the smoothed read-out then, and needs none."""
    plain = heads.build("smoothed", {"levels": ["high"], "steps": 0, "scale": 1.0}, {"high": 4}, corners=True)
    module, filled = made(index_size=2, neighbours=1), made(index_size=2, neighbours=1)
    query, (support, masks) = image(A, B, GROUND, OTHER), shown(A, GROUND)
    torch.testing.assert_close(module.train()(query, support, masks), plain(query, support, masks))
    seen = [shown(F.normalize(A + B, dim=0), OTHER), shown(GROUND, B), shown(A, OTHER)]  # the last has no room
    module.study([({"high": shot["high"][0]}, shares[0]) for shot, shares in seen], seed=0)
    torch.testing.assert_close(module(query, support, masks), plain(query, support, masks))
    filled.fill(regions((OTHER, F.normalize(A + B, dim=0)), (B, GROUND)))
    assert torch.equal(module.eval()(query, support, masks), filled(query, support, masks))
    assert not torch.allclose(module(query, support, masks), plain(query, support, masks))
