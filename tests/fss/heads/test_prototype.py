"""The prototype read-out by a loop."""

import torch
import torch.nn.functional as F

from fss import heads
from tests.fss.heads.test_heads import CHANNELS, episode


def test_the_readout_equals_a_loop():
    query, support, masks = episode(shots=2)
    head = heads.build("prototype", {"scale": 10.0}, CHANNELS, corners=True)
    found = head(query, support, masks)
    assert found.shape == (3, 2, 5, 5)
    for number in range(3):
        tokens = F.normalize(support["high"][number], dim=1)
        for side in range(2):
            mean = (tokens * masks[number, :, side][:, None]).sum((0, 2, 3))
            cosine = F.cosine_similarity(query["high"][number], mean[:, None, None], dim=0)
            assert torch.allclose(found[number, side], 10 * cosine, atol=1e-4)


def test_the_scale_does_not_move_the_border():
    inputs = episode()
    small, large = (
        heads.build("prototype", {"scale": s}, CHANNELS, corners=True)(*inputs).argmax(1) for s in (1.0, 50.0)
    )
    assert torch.equal(small, large)
