"""Source mining: cells by their nearest latent class, of which the background makes no region."""

import numpy as np
import pytest
import torch

from fss.labelling.sources import Block, Photo
from fss.labelling.sources.mining import MiningLabeller


def test_latent_classes_become_labels_and_regions():
    """Cells are multiples of the axes: the first is the background, the others are sub-clusters 1 and 2."""
    cells = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 2], [0, 0, 2, 2]])
    fields = torch.eye(3)[torch.from_numpy(cells)][None]
    block = Block([Photo("a", torch.zeros(0), (8, 8))], fields, corners=False)
    ((maps, regions),) = MiningLabeller(np.diag([5.0, 0.1, 1.0]).astype(np.float32)).maps(block)
    assert maps.shape == (1, 8, 8)
    assert maps.dtype == np.uint16
    assert np.array_equal(maps[0, 2:6, 2:6][1:3, 1:3], np.ones((2, 2)))
    assert (maps[0, 7, 7], maps[0, 0, 0]) == (2, 0)
    assert [(region.layer, region.label) for region in regions] == [(0, 1), (0, 2)]
    assert [region.area for region in regions] == pytest.approx([4 / 16, 3 / 16])
    assert regions[0].descriptor.tolist() == [0, 1, 0]


def test_an_image_of_background_alone_has_no_region():
    block = Block([Photo("a", torch.zeros(0), (8, 8))], torch.tensor([1.0, 0]).expand(1, 3, 3, 2), corners=True)
    ((maps, regions),) = MiningLabeller(np.eye(2, dtype=np.float32)).maps(block)
    assert not maps.any()
    assert list(regions) == []
