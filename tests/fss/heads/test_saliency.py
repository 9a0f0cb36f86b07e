"""The salient side of the query answers, whatever the supports are."""

import numpy as np
import torch

from fss import heads
from tests.fss.clustering.test_saliency import painted
from tests.fss.heads.test_heads import CHANNELS, episode


def test_a_given_map_is_the_probability():
    query, support, masks = episode()
    given_map = torch.linspace(0.01, 0.99, 75).reshape(3, 1, 5, 5)
    support["saliency"] = given_map[:, None].flip(0)
    found = heads.build("saliency", {}, CHANNELS, corners=True)(query | {"saliency": given_map}, support, masks)
    assert torch.allclose(found.softmax(dim=1)[:, 1:], given_map, atol=1e-5)


def test_the_cut_of_the_query_answers_whatever_the_support_is():
    query, support, masks = episode()
    side = np.zeros((5, 5), bool)
    side[1:3, 2:4] = True
    query["high"][1] = torch.from_numpy(np.pad(painted(side), ((0, 0), (0, 0), (0, 1)))).permute(2, 0, 1)
    head = heads.build("saliency", {"levels": ["high"]}, CHANNELS, corners=True)
    found = head(query, support, masks)
    assert np.array_equal((found[1, 1] > found[1, 0]).numpy(), side)
    again = head(query, {k: torch.zeros_like(v) for k, v in support.items()}, 1 - masks)
    assert torch.equal(found, again)
