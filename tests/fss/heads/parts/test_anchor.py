"""What anchors share: position is what a blank image shows, and cells vote by their nearest cells."""

import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.parts.anchor import placeless, shown_cells, speaking, votes

CHANNELS = {"low": 2, "mid": 2, "high": 12}


def placed(seed: int, places: torch.Tensor) -> torch.Tensor:
    """(1, 12, 4, 4): what images show is in the first six channels, where a cell lies in the others."""
    content = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.cat([content, places], dim=1)


@pytest.mark.parametrize("name", heads.anchors())
def test_what_a_blank_image_shows_is_projected_out(name):
    places = 3 * torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(9))
    head = heads.build(name, {"position": 0.5}, CHANNELS, corners=True)
    image = placed(0, places)
    with pytest.raises(RuntimeError, match="expected a head that knows what position is: call see_blank"):
        head.embed({"high": image})
    head.see_blank({"high": torch.cat([torch.zeros(1, 6, 4, 4), places], dim=1)})
    embedded = head.embed({"high": image})
    assert torch.allclose(embedded["tokens"], F.normalize(image, dim=1), atol=1e-6)
    shown, left = F.normalize(image[:, :6], dim=1).flatten(2), placeless(embedded).flatten(2)
    assert left.shape == shown.shape
    assert torch.allclose(left.transpose(1, 2) @ left, shown.transpose(1, 2) @ shown, atol=1e-5)


@pytest.mark.parametrize("name", heads.anchors())
def test_where_a_blank_image_is_the_same_everywhere_nothing_is_taken_out(name):
    head = heads.build(name, {"position": 0.5}, CHANNELS, corners=True)
    head.see_blank({"high": torch.ones(1, 12, 4, 4)})
    embedded = head.embed({"high": placed(0, torch.ones(1, 6, 4, 4))})
    assert placeless(embedded) is embedded["tokens"]


@pytest.mark.parametrize("name", heads.anchors())
def test_without_position_there_is_one_kind_of_tokens(name):
    embedded = heads.build(name, {"position": 0.0}, CHANNELS, corners=True).embed({"high": torch.ones(1, 12, 4, 4)})
    assert placeless(embedded) is embedded["tokens"]


def test_a_small_thing_has_a_cell_and_an_absent_one_none():
    masks = torch.zeros(1, 3, 2, 2, 2)
    masks[0, 0, 1], masks[0, 1, 1] = torch.tensor([[0.9, 0.4], [0.5, 0.0]]), torch.tensor([[0.1, 0.2], [0.0, 0.0]])
    assert shown_cells(masks)[0].tolist() == [[True, False, True, False], [False, True, False, False], [False] * 4]


def test_votes_by_hand():
    axes = torch.eye(3)
    query = axes[:, [0, 1, 2]]
    support = torch.stack([axes[:, [0, 1, 2]], axes[:, [1, 0, 2]], axes])
    shown = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    supports = speaking(support, shown)
    assert len(supports) == 2
    assert votes(query, supports).tolist() == [0.5, 1.0, 0.0]
    assert votes(query, []).tolist() == [0.0, 0.0, 0.0]
