"""Steps of the walk by hand."""

import torch

from fss.heads.parts.walk import affinity_walk, walked


def test_a_walk_steps_to_those_that_look_alike():
    tokens = torch.tensor([[[1.0, 0.6, -1.0], [0.0, 0.8, 0.0]]])
    found = affinity_walk(tokens)
    expected = torch.tensor([[1, 0.6**4, 0], [0.6**4, 1, 0], [0, 0, 1.0]])
    assert torch.allclose(found[0], expected / expected.sum(1, keepdim=True), atol=1e-6)


def test_one_walk_for_all_is_a_walk_for_each():
    g = torch.Generator().manual_seed(0)
    walk, maps = torch.rand(1, 6, 6, generator=g), torch.rand(4, 6, 3, generator=g)
    expected = torch.stack([walk[0] @ one for one in maps])
    assert torch.allclose(walked(walk.expand(4, 6, 6), maps), expected)
    assert torch.allclose(walked(walk.repeat(4, 1, 1), maps), expected)
