"""Running heads over episodes: the counts of doing it by hand, and every image through the backbone once."""

import dataclasses
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.datasets import Dataset
from fss.evaluation import metrics, running
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.episodes import Episode, EpisodeRules, Way, draw, pool
from fss.evaluation.metrics import Counts
from fss.evaluation.running import Photos
from fss.grid import cells
from fss.heads.parts.capabilities import Fits, Recalls, SeesBlank, Ways
from fss.heads.parts.head import Head
from tests.fss.conftest import noise_image

SIZES = {f"n{i}": (40 + 7 * i, 63 - 2 * i) for i in range(8)}
CLASSES = (1, 2, 3)
OPTIONS = {
    "correlation": {"residual": "smoothed", "dim": 8},
    "umtfss": {"residual": "smoothed", "dim": 16, "heads": 2, "foreground_prototypes": 4, "background_prototypes": 6},
    "pfenet": {"dim": 16},
    "cyctr": {"dim": 16, "heads": 2, "foreground_tokens": 20, "background_tokens": 20},
    "corpus_readout": {"index_size": 5, "neighbours": 2},
}
GIGABYTE = 10**9


def class_mask(name: str) -> np.ndarray:
    """Three classes and void, at another place in each image."""
    (width, height), shift = SIZES[name], int(name[1:])
    mask = np.zeros((height, width), np.uint8)
    mask[5 + shift : 30, 3 : width // 2] = 1
    mask[20:40, width // 2 :] = 2
    mask[40 + shift :, shift:-9] = 3
    mask[shift] = 255
    return mask


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("images")
    paths = {name: folder / f"{name}.{'jpg' if name < 'n4' else 'png'}" for name in SIZES}
    for seed, (name, size) in enumerate(SIZES.items()):
        noise_image(seed, size).save(paths[name])
    return Dataset(tuple(SIZES), ("first", "second", "third"), (CLASSES,), paths.__getitem__, class_mask)


def episodes(ways: int, shots: int, count: int = 8, seed: int = 0) -> list[Episode]:
    areas = {name: dict(zip(*np.unique(class_mask(name), return_counts=True), strict=True)) for name in SIZES}
    return draw(pool(areas, CLASSES, EpisodeRules("images", ways, shots, 1)), count=count, seed=seed)


def build(extractor, name: str) -> Head:
    backbone = extractor.backbone
    head = heads.build(name, OPTIONS.get(name, {}), backbone.channels, corners=backbone.corners).eval()
    if isinstance(head, Recalls):
        head.fill(np.random.default_rng(0).normal(size=head.index.swapaxes(0, 1).shape))
    if isinstance(head, SeesBlank):
        head.see_blank(extractor.blank())
    return head


def open_photos(extractor, dataset, folder=None, memory=GIGABYTE) -> Photos:
    return Photos(dataset, extractor, FeatureStore(folder, GIGABYTE), Memory(memory))


@torch.inference_mode()
def by_hand(extractor, dataset, head, episode: Episode, size, *, rounded=True) -> tuple[np.ndarray, np.ndarray]:
    """Backbone twice and head once for each way, as the field does it: labels, and how surely they are those.

    Sure is how far the best margin is from the next, as a share of the largest: heads that nobody trained hardly speak.
    """

    def see(name):
        picture = dataset.image(name)
        found = extractor([picture])
        seen = {level: v.half().float() for level, v in found.items()} if rounded else found
        return seen | {"colour": extractor.colours([picture], 9)} if head.sees_colour else seen

    margins = [torch.zeros(size)]
    for way in episode.ways:
        shown = [see(name) for name in way.supports]
        support = {level: torch.stack([f[level][0] for f in shown])[None] for level in shown[0]}
        masks = [cells(dataset.binary_mask(name, way.class_id), 9, corners=True) for name in way.supports]
        logits = head(see(episode.query), support, torch.stack(masks)[None])
        large = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)[0]
        margins.append(large[1] - large[0])
    best = torch.stack(margins).sort(dim=0, descending=True)
    largest = best.values.abs().max().clamp_min(1e-12)
    return best.indices[0].numpy(), ((best.values[0] - best.values[1]) / largest).numpy()


def truth_by_hand(dataset: Dataset, episode: Episode) -> np.ndarray:
    mask = dataset.mask(episode.query)
    found = np.where(mask == 255, 255, 0)
    for number, way in enumerate(episode.ways, 1):
        found[mask == way.class_id] = number
    return found


def numbers(rows: list[Counts]) -> np.ndarray:
    return np.array([list(vars(row).values()) for row in rows])


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("name", heads.names())
def test_results_equal_doing_it_by_hand(extractor, dataset, name, ways, shots):
    head, drawn, side = build(extractor, name), episodes(ways, shots), 65
    if isinstance(head, Fits) or (ways > 1 and isinstance(head, Ways)):
        pytest.skip("it needs a fit first, or answers several ways together: its own tests have that by hand")
    found = list(running.run(head, open_photos(extractor, dataset), drawn, side, batch=4))
    assert [result.episode for result in found] == drawn
    for result in found:
        truth = truth_by_hand(dataset, result.episode)
        expected, sure = by_hand(extractor, dataset, head, result.episode, truth.shape)
        assert result.prediction.dtype == np.uint8
        assert result.prediction.shape == truth.shape
        assert (result.prediction == expected)[sure > 1e-3].all()
        assert name not in ("prototype", "smoothed", "nearest", "panet") or (sure > 1e-3).mean() > 0.98
        assert result.counts == metrics.count(result.prediction, truth, ways)

        small = F.interpolate(torch.from_numpy(truth)[None, None].double(), size=(side, side), mode="nearest")[0, 0]
        expected, sure = by_hand(extractor, dataset, head, result.episode, (side, side))
        difference = numbers(result.model_counts) - numbers(metrics.count(expected, small.numpy(), ways))
        assert np.abs(difference).max() <= (sure <= 1e-3).sum()


@pytest.mark.parametrize("name", ["prototype", "smoothed"])
def test_rounding_features_to_float16_moves_little(extractor, dataset, name):
    head = build(extractor, name)
    for result in running.run(head, open_photos(extractor, dataset), episodes(1, 2), 65):
        shape = result.prediction.shape
        expected, sure = by_hand(extractor, dataset, head, result.episode, shape, rounded=False)
        assert (result.prediction == expected)[sure > 0.05].all()
        assert (result.prediction != expected).mean() < 0.01


def outcome(found) -> dict[tuple, tuple]:
    return {
        (r.episode.index, len(r.episode.ways)): (r.counts, r.model_counts, r.prediction.tobytes(), r.prediction.shape)
        for r in found
    }


def test_neither_order_nor_memory_nor_disk_change_a_bit(extractor, dataset, tmp_path):
    """Episodes one by one, so that the sizes of the batches, and with them the last bits, stay the same."""
    drawn, head = [*episodes(1, 2, 12), *episodes(2, 1, 12)], build(extractor, "smoothed")
    expected = outcome(running.run(head, open_photos(extractor, dataset), drawn, 65, batch=1))
    assert len(expected) == 24
    orders = [drawn[::-1], sorted(drawn, key=lambda e: e.query), random.Random(0).sample(drawn, len(drawn))]
    for order in orders:
        for folder, memory in ((None, 0), (tmp_path, 30_000), (tmp_path, GIGABYTE)):
            photos = open_photos(extractor, dataset, folder, memory)
            assert outcome(running.run(head, photos, order, 65, batch=1)) == expected
            assert photos.memory.bytes <= memory


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_the_batch_changes_no_more_than_rounding(extractor, dataset, batch):
    """Neighbours with one query go through the head together, also where the last batch is a smaller one."""
    drawn = sorted(episodes(1, 1, 40), key=lambda e: e.query)
    head, photos, seen = build(extractor, "smoothed"), open_photos(extractor, dataset), []
    expected = list(running.run(head, photos, drawn, 65, batch=1))
    match = head.match
    head.match = lambda query, support, masks: seen.append(len(masks)) or match(query, support, masks)
    found = list(running.run(head, photos, drawn, 65, batch=batch))
    assert sum(seen) == 40
    assert max(seen) == min(batch, 5)  # five episodes on each of eight queries
    for one, many in zip(expected, found, strict=True):
        assert one.episode == many.episode
        assert np.count_nonzero(one.prediction != many.prediction) <= 1
        assert np.abs(numbers(one.counts) - numbers(many.counts)).max() <= 1


@pytest.fixture
def forwards(extractor):
    """The batches that the network has seen, as they come."""
    seen: list[int] = []
    handle = extractor.backbone.net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    handle.remove()


def test_fresh_features_lie_in_memory_as_stored_ones(extractor, dataset, tmp_path):
    name, kept = next(iter(SIZES)), open_photos(extractor, dataset, tmp_path)
    kept.prepare([name])
    fresh, stored = open_photos(extractor, dataset).features(name), kept.features(name)
    assert {level: values.stride() for level, values in fresh.items()} == {
        level: values.stride() for level, values in stored.items()
    }


def test_an_image_goes_through_the_backbone_once_and_for_all(extractor, dataset, forwards, tmp_path):
    drawn = episodes(1, 2, 12)
    used = len({name for e in drawn for name in (e.query, *e.ways[0].supports)})
    assert used == len(SIZES)
    first = open_photos(extractor, dataset, tmp_path, memory=0)
    assert first.grid == 9
    forwards.clear()  # that of a blank image, for the grid
    first.prepare(list(SIZES)[:3])
    assert first.computed == 3
    assert forwards == [1, 1, 1]  # on a CPU one by one, for the last bits depend on the batch
    first.prepare(list(SIZES)[:3])
    assert (first.computed, sum(forwards)) == (3, 3)
    results = [outcome(running.run(build(extractor, "prototype"), first, drawn, 65)) for _ in range(2)]
    assert (first.computed, sum(forwards)) == (used, used)

    second = open_photos(extractor, dataset, tmp_path, memory=0)
    results.append(outcome(running.run(build(extractor, "prototype"), second, drawn, 65)))
    list(running.run(build(extractor, "correlation"), second, drawn, 65))
    assert second.computed == 0
    assert sum(forwards) == used

    alone = open_photos(extractor, dataset)
    results.append(outcome(running.run(build(extractor, "prototype"), alone, drawn, 65)))
    assert alone.computed == used  # kept in memory
    assert results[1:] == results[:1] * 3


def test_supports_that_are_shown_again_are_worked_on_once(extractor, dataset, monkeypatch):
    head, (first, *_) = build(extractor, "prototype"), episodes(1, 2)
    shown, show = [], head.show
    monkeypatch.setattr(head, "show", lambda *given: shown.append(given) or show(*given))
    again = dataclasses.replace(first, index=first.index + 1)
    one, two = running.run(head, open_photos(extractor, dataset), [first, again], 65, batch=1)
    assert len(shown) == 1
    assert (one.prediction == two.prediction).all()


def test_a_damaged_file_is_computed_again(extractor, dataset, tmp_path):
    open_photos(extractor, dataset, tmp_path).prepare(["n0", "n1"])
    path = tmp_path / f"{dataset.key('n0')}.features"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    photos = open_photos(extractor, dataset, tmp_path)
    found = photos.features("n0")
    assert photos.computed == 1
    assert path.read_bytes() == whole
    assert {(v.dtype, tuple(v.shape[1:])) for v in found.values()} == {(torch.float16, (9, 9))}
    photos.features("n1")
    assert photos.computed == 1


def test_one_image_under_two_names_is_one_image(extractor, dataset, tmp_path):
    twice = Dataset(("a", "b"), ("first",), ((1,),), lambda _: dataset.path("n2"), class_mask)
    photos = open_photos(extractor, twice, tmp_path)
    assert all(torch.equal(v, photos.features("b")[level]) for level, v in photos.features("a").items())
    assert photos.computed == 1


def test_heads_and_data_sets_that_share_a_memory_do_not_mix(extractor, dataset):
    """Both sets have the names of all images in common, one the images and masks of the other in reverse."""

    def turn(name):
        return f"n{7 - int(name[1:])}"

    turned = Dataset(
        dataset.names, dataset.class_names, (CLASSES,), lambda n: dataset.path(turn(n)), lambda n: class_mask(turn(n))
    )
    memory, drawn = Memory(GIGABYTE), episodes(1, 1)
    shared = [Photos(data, extractor, FeatureStore(None, 0), memory) for data in (dataset, turned)]
    for head in (build(extractor, "prototype"), build(extractor, "smoothed")):
        for photos in shared:
            alone = open_photos(extractor, photos.dataset)
            expected = outcome(running.run(head, alone, drawn, 65))
            assert outcome(running.run(head, photos, drawn, 65)) == expected
    assert [photos.computed for photos in shared] == [2 * alone.computed] * 2  # there is no store: once for each head


class Shares(Head):
    """Claims for each cell the share of foreground that the supports have at that place, if it is above one half."""

    def match(self, query, support, masks):
        share = masks[:, :, 1].mean(dim=1) - 0.5
        return torch.stack([torch.zeros_like(share), share], dim=1)


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Dataset:
    """Images of 65 x 65 pixels, whose cells lie on the pixels 0, 8, .., 64.

    `left` shows class 4 in its first 25 columns, `right` class 6 in its last 25. The shares cross one half between the
    columns 24 and 25, and 39 and 40: what `Shares` answers is these very masks.
    """
    folder = tmp_path_factory.mktemp("squares")
    masks = {name: np.zeros((65, 65), np.uint8) for name in ("query", "left", "right")}
    masks["left"][:, :25] = 4
    masks["right"][:, 40:] = 6
    masks["query"][:, :32] = 4
    masks["query"][:, 34:37] = 5  # a class that nobody asks for
    masks["query"][:32, 40:] = 6
    masks["query"][64] = 255
    for seed, name in enumerate(masks):
        noise_image(seed, (65, 65)).save(folder / f"{name}.png")
    return Dataset(tuple(masks), tuple("abcdef"), ((4, 5, 6),), lambda n: folder / f"{n}.png", masks.__getitem__)


LEFT, RIGHT = Way(4, ("left",)), Way(6, ("right",))


def test_ways_and_both_resolutions_by_hand(extractor, squares):
    """64 known rows. At 5 x 5 pixels the answer is 1 1 0 2 2 in each row and the truth 1 1 1 0 2, or 0 in the end.

    The truth's pixels are the rows and columns 0, 13, 26, 39, 52.
    """
    drawn = [Episode(0, "query", (LEFT, RIGHT)), Episode(1, "query", (RIGHT, LEFT))]
    first, second = running.run(Shares(), open_photos(extractor, squares), drawn, side=5)
    for found, (left, right) in ((first, (1, 2)), (second, (2, 1))):
        row = np.array([left] * 25 + [0] * 15 + [right] * 25, np.uint8)
        assert np.array_equal(found.prediction, np.tile(row, (65, 1)))

    left = {"intersection": 25 * 64, "union": 32 * 64, "predicted": 25 * 64, "true": 32 * 64}
    right = {"intersection": 25 * 32, "union": 25 * 64, "predicted": 25 * 64, "true": 25 * 32}
    behind = {"background_intersection": 8 * 64, "background_union": (15 + 8 - 8) * 64 + 25 * 32}
    assert first.counts == rows((left, right), behind)
    assert second.counts == rows((right, left), behind)

    left = {"intersection": 10, "union": 15, "predicted": 10, "true": 15}
    right = {"intersection": 3, "union": 10, "predicted": 10, "true": 3}
    behind = {"background_intersection": 0, "background_union": 5 + 5 + 2}
    assert first.model_counts == rows((left, right), behind)
    assert second.model_counts == rows((right, left), behind)


def rows(ways, behind) -> list[Counts]:
    """Background counts stand with the first way."""
    return [Counts(**way, **(behind if n == 0 else dict.fromkeys(behind, 0))) for n, way in enumerate(ways)]


def test_several_shots_of_several_ways_keep_to_their_way(extractor, squares):
    """A support that shows nothing of the class halves its share: nothing is above one half any more."""
    photos = open_photos(extractor, squares)
    doubled = [Way(4, ("left", "left")), Way(6, ("right", "right"))]
    halved = [Way(4, ("left", "right")), Way(6, ("right", "right"))]
    drawn = [Episode(0, "query", tuple(doubled)), Episode(1, "query", tuple(halved))]
    for batch in (1, 16):
        two, one = (r.prediction[0].tolist() for r in running.run(Shares(), photos, drawn, side=5, batch=batch))
        assert two == [1] * 25 + [0] * 15 + [2] * 25
        assert one == [0] * 40 + [2] * 25


def test_labels_of_an_episode():
    """Ways count from one in the order of the episode; class 255 is a class where void is 65535."""
    mask = np.array([[0, 3, 255, 7, 65535]], np.uint16)
    assert running.labels(mask, (7, 255), 65535).tolist() == [[0, 0, 2, 1, 255]]
    found = running.labels(mask.astype(np.uint8), (3,), 255)
    assert found.tolist() == [[0, 1, 255, 0, 255]]
    assert found.dtype == np.uint8


def test_nothing_to_do(extractor, dataset):
    assert list(running.run(build(extractor, "prototype"), open_photos(extractor, dataset), [], 65)) == []
