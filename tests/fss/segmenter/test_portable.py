"""A model as a graph: any head that can, any number of queries and supports, the answers of the Segmenter."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss import heads
from fss.segmenter import Segmenter, portable
from tests.fss.segmenter.test_segmenter import OPTIONS, write

pytestmark = pytest.mark.usefixtures("exact_products")  # as those of programs are

#: Small networks of heads that are large by default.
SMALL = OPTIONS | {
    "cyctr": {"dim": 16, "heads": 2, "layers": 1},
    "masksplit": {"dim": 32},
    "panet": {"dim": 16},
    "pfenet": {"dim": 16},
    "pixel_meta": {"dim": 8, "hidden": 16},
}
#: The network and the size of its images. Below heads that are small there is one of each family, whose cells tile the
#: image or have their outermost centres on its border; below all others the compact one.
NETWORKS = {
    "nearest": ("vgg16", 64),
    "panet": ("vit_small", 64),
    "prototype": ("mobilenet_v2", 65),
    "smoothed": ("resnet18", 65),
}
#: What a head is added to, of which each is a graph by itself as well.
ADDED = {"correlation": {"residual": "corpus_readout", "by_shots": True, "otsu": 0.5, "own": 0.5}}
GRAPHS = [name for name in heads.names() if not heads.kind(name).no_graph]
SIZE = 64


def model(folder, name, **more):
    network, size = NETWORKS.get(name, ("small", SIZE))
    write(folder, name, network=network, size=size, **SMALL.get(name, {}) | ADDED.get(name, {}) | more)
    return Segmenter.load(folder, "cpu")


def asked(queries: int, shots: int, side: int = SIZE):
    """Random images with masks, of which the first has void and the second shows nothing."""
    g = torch.Generator().manual_seed(queries + shots)
    pixels = torch.randint(0, 256, (queries + shots, 3, side, side), generator=g).byte()
    masks = torch.zeros(shots, side, side, dtype=torch.uint8)
    masks[:, 16:40, 10:50] = 1
    masks[1:2] = 0
    masks[0, :5] = 255
    return pixels[:queries], pixels[queries:], masks


def expected(segmenter, queries, supports, masks):
    shown = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in supports]
    return np.stack([segmenter.probabilities(one, shown, list(masks.numpy())) for one in queries])


def check_torch(segmenter):
    program = portable.program(segmenter)
    for numbers in ((3, 2), (1, 1), (2, 5)):
        given = asked(*numbers, segmenter.extractor.size)
        found = program.module()(*given).numpy()
        np.testing.assert_allclose(found, expected(segmenter, *given), atol=1e-5)
    assert found.std() > 1e-4
    return program


def check_onnx(segmenter, folder):
    import onnxruntime

    portable.to_onnx(check_torch(segmenter)).save(folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [one.name for one in session.get_inputs()] == ["queries", "supports", "masks"]
    for numbers in ((3, 2), (1, 1), (2, 5)):
        given = asked(*numbers, segmenter.extractor.size)
        named = dict(zip(("queries", "supports", "masks"), (one.numpy() for one in given), strict=True))
        (found,) = session.run(["probabilities"], named)
        gap = np.abs(found - expected(segmenter, *given))
        assert gap.max() <= 1e-2, "what the card promises: first centroids of umtfss hang on the last bits of a sine"
        assert np.median(gap) <= 1e-3


def test_most_heads_are_graphs():
    assert {"correlation", "corpus_readout", "umtfss", "pfenet", *NETWORKS} <= {*GRAPHS}


def test_a_residual_head_is_one_if_both_of_its_parts_are(tmp_path):
    with pytest.raises(ValueError, match="sst takes a gradient inside of its forward pass"):
        portable.program(model(tmp_path, "sst", residual="prototype"))


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_every_head_on_every_family_of_backbones_answers_as_the_segmenter_does(tmp_path, name):
    check_onnx(model(tmp_path, name), tmp_path)
