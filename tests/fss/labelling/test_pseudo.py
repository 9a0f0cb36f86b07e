"""What is clustered of an image, and the label maps and regions that come of it, against plain loops."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss import grid
from fss.labelling import pseudo
from fss.labelling.pseudo import Clusters, EmbeddingOptions


def one(array: np.ndarray) -> torch.Tensor:
    """A batch of one image."""
    return torch.from_numpy(array)[None]


def sampled(array: np.ndarray, recipe: EmbeddingOptions, seed: int = 0) -> np.ndarray:
    (rows,) = pseudo.embeddings(one(array), None, recipe, [np.random.default_rng(seed)])
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def field(height: int = 6, width: int = 8, dims: int = 5, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((height, width, dims))).astype(np.float32)


def quadrants(size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A field of four plain quarters, slightly noisy, and their map."""
    quarter = (np.arange(size)[:, None] >= size // 2) * 2 + (np.arange(size)[None] >= size // 2)
    noise = 0.02 * np.random.default_rng(1).standard_normal((size, size, 6))
    return unit(np.eye(6)[quarter] + noise).astype(np.float32), quarter


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = {(int(a), int(b)) for a, b in zip(first.ravel(), second.ravel(), strict=True)}
    return len(pairs) == len(np.unique(first)) == len(np.unique(second))


def test_tokens_weigh_every_level_alike_and_have_length_one():
    g = torch.Generator().manual_seed(0)
    features = {"mid": 100 * torch.randn(3, 4, 5, generator=g), "high": torch.randn(7, 4, 5, generator=g).half()}
    found = pseudo.tokens(features, ("mid", "high")).numpy()
    assert found.shape == (4, 5, 10)
    assert found.dtype == np.float32
    assert np.allclose((found**2).sum(-1), 1, atol=1e-5)
    assert np.allclose((found[..., :3] ** 2).sum(-1), 0.5, atol=1e-3)
    mid = features["mid"][:, 2, 3].numpy()
    assert np.allclose(found[2, 3, :3], mid / np.linalg.norm(mid) / np.sqrt(2), atol=1e-5)


def test_centred_rows_by_hand():
    found = pseudo.centred(np.array([[4, 4], [1, 0]], np.float32), np.array([1, 0], np.float32))
    assert np.allclose(found, [[0.6, 0.8], [0, 0]])
    assert found.dtype == np.float32


def test_pooling_equals_a_loop():
    tokens, labels = field(), np.random.default_rng(0).integers(0, 4, (6, 8))
    found = pseudo.pool(torch.from_numpy(tokens), torch.from_numpy(labels)[None]).numpy()
    for segment in range(4):
        mean = tokens[labels == segment].mean(0)
        assert np.allclose(found[segment], mean / np.linalg.norm(mean), atol=1e-5)


def test_pixels_are_drawn_without_replacement_and_repeat():
    recipe = EmbeddingOptions(segments="none", points_per_image=20)
    rows = sampled(field(), recipe)
    every = {row.tobytes() for row in field().reshape(-1, 5)}
    assert rows.shape == (20, 5)
    assert len({row.tobytes() for row in rows} & every) == 20
    assert np.array_equal(rows, sampled(field(), recipe))
    assert not np.array_equal(rows, sampled(field(), recipe, seed=1))
    many = sampled(field(), EmbeddingOptions(segments="none", points_per_image=999))
    assert np.array_equal(many, field().reshape(-1, 5))


def test_segments_are_described_at_every_granularity():
    tokens, quarter = quadrants()
    rows = sampled(tokens, EmbeddingOptions(granularities=(2, 4)))
    assert rows.shape == (6, 6)
    found = {int(row.argmax()) for row in rows[2:] if row.max() > 0.99}
    assert found == {0, 1, 2, 3}
    assert np.allclose(pseudo.pool(torch.from_numpy(tokens), one(quarter)).amax(1), 1, atol=0.01)


def test_cells_take_the_cluster_of_their_pixel_or_of_their_segment():
    tokens, quarter = quadrants()
    centre = np.full(6, 0.1, np.float32)
    clusters = Clusters(pseudo.centred(np.eye(6, dtype=np.float32)[[2, 0, 1, 3]], centre), centre)
    expected = np.array([1, 2, 0, 3])[quarter]
    plain = pseudo.label_grids(one(tokens), clusters, EmbeddingOptions(segments="none"))[0]
    assert plain.shape == (1, 8, 8)
    assert np.array_equal(plain[0], expected)
    layers = pseudo.label_grids(one(tokens), clusters, EmbeddingOptions(granularities=(4, 2)))[0]
    assert layers.shape == (2, 8, 8)
    assert np.array_equal(layers[0], expected)
    assert len(np.unique(layers[1])) <= 2


def test_enlarged_layers_are_labels_of_pixels():
    layers = np.stack([np.eye(3, dtype=np.int64) * 7, np.full((3, 3), 500)])
    found = pseudo.enlarge(layers, (17, 25), EmbeddingOptions(), corners=True)
    assert found.shape == (2, 17, 25)
    assert found.dtype == np.uint16
    assert set(np.unique(found[0])) == {0, 7}
    assert (found[1] == 500).all()
    assert found[0, 0, 0] == found[0, 16, 24] == 7


def test_a_region_by_hand():
    labels = np.zeros((4, 5), np.int64)
    labels[1:3, 0:2] = 3
    tokens = field(4, 5)
    background, thing = pseudo.regions(labels[None], torch.from_numpy(tokens))
    assert (thing.layer, thing.label) == (0, 3)
    assert thing.area == pytest.approx(4 / 20)
    assert thing.border == pytest.approx(2 / 14)
    assert thing.empty_rows == pytest.approx(2 / 4)
    assert thing.empty_columns == pytest.approx(3 / 5)
    mean = tokens[1:3, 0:2].reshape(-1, 5).sum(0)
    assert np.allclose(thing.descriptor, mean / np.linalg.norm(mean), atol=1e-5)
    assert background.area == pytest.approx(16 / 20)
    assert (background.empty_rows, background.empty_columns) == (0, 0)


def test_a_region_found_before_is_left_out():
    labels = np.zeros((4, 4), np.int64)
    labels[0, 0] = 1
    finer = labels.copy()
    finer[3, 3] = 2
    renamed = np.where(labels == 1, 5, 0)
    found = [
        (r.layer, r.label) for r in pseudo.regions(np.stack([labels, finer, renamed]), torch.from_numpy(field(4, 4)))
    ]
    assert found == [(0, 0), (0, 1), (1, 0), (1, 2), (2, 5)]


def test_regions_of_a_layer_share_out_the_image():
    layers = np.random.default_rng(0).integers(0, 5, (1, 6, 8))
    found = pseudo.regions(layers, torch.from_numpy(field()))
    assert sum(region.area for region in found) == pytest.approx(1)
    assert sum(region.border for region in found) == pytest.approx(1)


def test_segments_vote_for_the_cluster_of_most_of_their_cells():
    tokens = quadrants()[0]
    centre = np.full(6, 0.1, np.float32)
    clusters = Clusters(pseudo.centred(np.eye(6, dtype=np.float32)[[2, 0, 1, 3, 4]], centre), centre)
    tokens[0, 0] = tokens[7, 7] = np.eye(6)[4]  # cells of another cluster, outvoted where they are merged
    for name in ("agglomerate", "ncut"):
        recipe = EmbeddingOptions(segments=name, unit="pixels", granularities=(4,), points_per_image=7)
        assert sampled(tokens, recipe).shape == (7, 6)
        (found,) = pseudo.label_grids(one(tokens), clusters, recipe)[0]
        plain = pseudo.label_grids(one(tokens), clusters, EmbeddingOptions(segments="none"))[0, 0]
        inside = ~((tokens == np.eye(6)[4]).all(-1))
        assert (found[inside] == plain[inside]).mean() > 0.9
        assert len(np.unique(found)) <= 4 < len(np.unique(plain))


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("unit_clustered", ["pixels", "segments"])
@pytest.mark.parametrize(("height", "width"), [(180, 420), (420, 180)])
def test_superpixel_labels_cover_the_things_of_a_picture_that_is_not_square(corners, unit_clustered, height, width):
    """Two things at known places; their looks on the grid are what a square network input would show of them."""
    truth = np.zeros((height, width), np.int64)
    truth[height // 6 : height // 2, width // 10 : width // 3] = 1
    truth[height // 2 :, 2 * width // 3 :] = 2
    cells = grid.sample_labels(truth, (27, 27), corners)
    field = torch.from_numpy(np.eye(6, dtype=np.float32)[cells])
    centre = np.full(6, 0.1, np.float32)
    clusters = Clusters(pseudo.centred(np.eye(6, dtype=np.float32)[[2, 0, 1]], centre), centre)
    recipe = EmbeddingOptions(segments="superpixel", unit=unit_clustered)
    columns = np.arange(width) * 4 // width
    cut = np.unique(truth * 100 + columns, return_inverse=True)[1].reshape(truth.shape)
    ((maps, small),) = pseudo.label_maps(field[None], [cut], clusters, recipe, corners)
    assert maps.shape == (1, height, width)
    assert small.shape == (1, 27, 27)
    for thing, cluster in ((0, 1), (1, 2), (2, 0)):
        found, real = maps[0] == cluster, truth == thing
        assert (found & real).sum() / (found | real).sum() > 0.98


def test_maps_of_shrunken_superpixels_are_enlarged_pixel_by_pixel():
    found = pseudo.enlarge(
        np.array([[[7, 300], [2, 2]]]), (4, 6), EmbeddingOptions(segments="superpixel"), corners=True
    )
    assert found.dtype == np.uint16
    assert found[0].tolist() == [[7] * 3 + [300] * 3] * 2 + [[2] * 6] * 2


def test_only_superpixels_are_cut_in_the_picture():
    picture = Image.fromarray(np.zeros((40, 70, 3), np.uint8))
    assert pseudo.cut_up(picture, EmbeddingOptions()) is None
    assert np.array_equal(pseudo.cut_up(picture, EmbeddingOptions(segments="superpixel")), np.zeros((40, 70)))


def test_superpixels_are_asked_for_by_name():
    recipe = EmbeddingOptions(segments="superpixel")
    with pytest.raises(ValueError, match="cut_up"):
        pseudo.embeddings(one(field()), None, recipe, [np.random.default_rng(0)])
