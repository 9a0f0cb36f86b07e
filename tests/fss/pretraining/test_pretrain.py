"""Pre-training: views are a pure function, losses by hand, proposals find what stands out, the loss falls."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fss.backbones.small import SmallNet
from fss.imaging.images import normalise
from fss.pretraining.contrast import ContrastConfig, PretrainModel, object_contrast
from fss.pretraining.proposals import border_saliency, components, propose
from fss.pretraining.views import ViewConfig, Views, crop, make_views, uniforms
from fss.scenes.scene import render

VIEWS = ViewConfig(crop=64, grid=8)
PLAIN = ViewConfig(
    crop=32, grid=8, scale=(1, 1), aspect=0, brightness=0, contrast=0, saturation=0, hue=0, grey=0, blur=0
)


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    """Tests here may draw from torch's global generator; what the library draws itself is tested on its own."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(render(0, i, 96)[0])) for i in range(8)]).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def views(scenes: torch.Tensor) -> Views:
    return make_views(scenes, propose(scenes), torch.arange(8), seed=0, config=VIEWS)


def test_small_net_shapes_strides_and_size() -> None:
    net = SmallNet(seed=0)
    features = net(torch.rand(2, 3, 96, 96))
    assert {name: tuple(level.shape) for name, level in features.items()} == {
        "low": (2, 48, 24, 24),
        "mid": (2, 96, 12, 12),
        "high": (2, 128, 12, 12),
    }
    assert all(level.shape[1] == net.channels[name] for name, level in features.items())
    assert sum(parameter.numel() for parameter in net.parameters()) < 1_500_000
    with pytest.raises(ValueError, match=r"multiples of 8, got \(1, 3, 60, 96\)"):
        net(torch.rand(1, 3, 60, 96))


def test_small_net_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = SmallNet(seed=1).state_dict()
    torch.manual_seed(6)
    again, other = SmallNet(seed=1).state_dict(), SmallNet(seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_small_net_features_lie_in_the_middle_of_their_cells() -> None:
    net = SmallNet(seed=0).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 4:  # mirror-symmetric kernels: then a mirrored image has mirrored features
                parameter.copy_((parameter + parameter.flip(3)) / 2)
        image = torch.rand(1, 3, 64, 64)
        here, there = net(image), net(image.flip(3))
    for name in here:
        torch.testing.assert_close(here[name], there[name].flip(3), rtol=1e-3, atol=1e-3)


def test_views_are_a_pure_function_of_seed_and_index(scenes: torch.Tensor, views: Views) -> None:
    proposals = propose(scenes)
    alone = make_views(scenes[5:6], proposals[5:6], torch.tensor([5]), seed=0, config=VIEWS)
    torch.testing.assert_close(alone.images[:, 0], views.images[:, 5], rtol=0, atol=1e-5)
    assert torch.equal(alone.proposals[:, 0], views.proposals[:, 5])
    for seed, index in ((1, 5), (0, 13)):
        other = make_views(scenes[5:6], proposals[5:6], torch.tensor([index]), seed=seed, config=VIEWS)
        assert (other.images[:, 0] - views.images[:, 5]).abs().mean() > 0.05
    assert (views.images[0] - views.images[1]).abs().mean() > 0.05


def test_uniform_rows_do_not_depend_on_the_batch() -> None:
    rows = uniforms(3, torch.tensor([7, 8, 7]), 1000)
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert rows.min() >= 0
    assert rows.max() < 1
    assert rows.mean().item() == pytest.approx(0.5, abs=0.05)


def test_views_without_changes_are_the_image_or_its_mirror() -> None:
    images = torch.rand(6, 3, 32, 32)
    proposals = torch.randint(0, 3, (6, 8, 8), dtype=torch.uint8)
    views = make_views(images, proposals, torch.arange(6), seed=0, config=PLAIN)
    mirrored = 0
    for view in (0, 1):
        for b in range(6):
            flip = [2] if (views.images[view, b] - normalise(images[b])).abs().max() > 1e-3 else []
            mirrored += len(flip)
            torch.testing.assert_close(views.images[view, b], normalise(images[b]).flip(flip), rtol=0, atol=1e-4)
            assert torch.equal(views.proposals[view, b], proposals[b].long().flip([1] if flip else []))
    assert 0 < mirrored < 12


def test_crop_by_hand() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    right_half = torch.tensor([[0.5, 1, 0.5, 0]])
    assert crop(ramp, right_half, 4)[0, 0, 0].tolist() == [4, 5, 6, 7]
    assert crop(ramp, right_half * torch.tensor([-1, 1, 1, 1]), 4)[0, 0, 0].tolist() == [7, 6, 5, 4]


def test_a_turned_hue_keeps_grey_and_turns_colours() -> None:
    from fss.pretraining.views import _hue_turn

    third = _hue_turn(torch.tensor([0.0, 1 / 3]))
    torch.testing.assert_close(third[0], torch.eye(3))
    torch.testing.assert_close(third[1] @ torch.eye(3)[0], torch.eye(3)[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(third @ torch.ones(3), torch.ones(2, 3))


def test_view_config_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"scale must satisfy 0 < low <= high <= 1, got \(0.5, 1.5\)"):
        ViewConfig(scale=(0.5, 1.5))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        ContrastConfig(temperature=0)


def test_saliency_is_high_on_what_is_unlike_the_border() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 0.3 + 0.02 * torch.rand(1, 3, 64, 64, generator=generator)
    image[:, 0, 20:44, 36:64] += 0.5  # it touches the border
    saliency = border_saliency(image, side=16)
    assert saliency.shape == (1, 16, 16)
    assert saliency[0, 7:9, 12:14].min() > 5 * saliency[0, :, :7].max()
    proposals = propose(image, side=16, smallest=4)[0]
    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[5:11, 9:] = True
    assert ((proposals == 1) & truth).sum() / ((proposals == 1) | truth).sum() > 0.7
    with pytest.raises(ValueError, match="multiple of 32"):
        border_saliency(torch.rand(1, 3, 60, 60))


def test_proposals_cover_the_objects_of_scenes() -> None:
    both = either = 0
    for index in range(24):
        image, mask = render(1, index, 128)
        found = propose(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)[0].numpy() > 0
        truth = mask[2::4, 2::4]
        both += (found & (truth > 0))[truth != 255].sum()
        either += (found | (truth > 0))[truth != 255].sum()
    assert both / either > 0.5


def test_components_are_numbered_by_size() -> None:
    mask = np.zeros((16, 16), bool)
    mask[1:5, 1:5] = mask[8:14, 8:14] = mask[1:4, 10:13] = True
    mask[4, 4:9] = True  # a thread that opening cuts
    numbers = components(mask, most=2, smallest=4)
    assert numbers[10, 10] == 1
    assert numbers[2, 2] == 2
    assert numbers[2, 11] == 0
    assert components(mask, most=9, smallest=20).max() == 1


def test_object_contrast_by_hand() -> None:
    """Two images of one object each; embeddings are axes, so that the cosines are 0 and 1."""
    embeddings = torch.zeros(2, 2, 2, 1, 3)
    embeddings[:, 0, 0] = 1
    embeddings[:, 1, 1] = 1
    proposals = torch.tensor([[[[1, 1, 0]], [[2, 0, 0]]], [[[1, 0, 0]], [[2, 2, 2]]]])
    right = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert object_contrast(embeddings, proposals, temperature=0.5).item() == pytest.approx(right, abs=1e-6)
    wrong = math.log(math.exp(2) + 1)
    swapped = torch.stack((embeddings[0], embeddings[1].flip(0)))
    assert object_contrast(swapped, proposals, temperature=0.5).item() == pytest.approx(wrong, abs=1e-6)


def test_object_contrast_is_brute_force() -> None:
    g = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(2, 3, 5, 4, 4, generator=g), dim=2)
    proposals = torch.randint(0, 4, (2, 3, 4, 4), generator=g)
    proposals[1, 2][proposals[1, 2] == 3] = 0  # an object that only the first view shows
    names = [(b, m) for b in range(3) for m in (1, 2, 3) if all((proposals[v, b] == m).any() for v in (0, 1))]
    assert (2, 3) not in names
    total = []
    for view in (0, 1):
        means = [embeddings[1 - view, b][:, proposals[1 - view, b] == m].sum(1) for b, m in names]
        means = torch.stack([F.normalize(mean, dim=0) for mean in means])
        losses = [
            F.cross_entropy(means @ embeddings[view, b, :, y, x] / 0.3, torch.tensor(k))
            for k, (b, m) in enumerate(names)
            for y, x in (proposals[view, b] == m).nonzero().tolist()
        ]
        total.append(torch.stack(losses).mean())
    torch.testing.assert_close(object_contrast(embeddings, proposals, temperature=0.3), torch.stack(total).mean())


def test_object_contrast_without_objects_is_zero() -> None:
    embeddings = torch.rand(2, 2, 4, 3, 3, requires_grad=True)
    loss = object_contrast(embeddings, torch.zeros(2, 2, 3, 3, dtype=torch.long), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None


def test_gradients_reach_every_parameter_and_the_loss_falls(views: Views) -> None:
    model = PretrainModel(SmallNet(seed=0), ContrastConfig())
    first = model(views)
    assert first["loss"].item() == pytest.approx((first["contrast"] + first["objectness"]).item(), abs=1e-5)
    first["loss"].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        loss = model(views)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8 * first["loss"].item()


def test_the_model_comes_from_its_seeds_alone(views: Views) -> None:
    torch.manual_seed(1)
    first = PretrainModel(SmallNet(seed=3), ContrastConfig(bfloat16=False), seed=4)(views)["loss"]
    torch.manual_seed(2)
    again = PretrainModel(SmallNet(seed=3), ContrastConfig(bfloat16=False), seed=4)(views)["loss"]
    assert first.item() == again.item()


def test_building_networks_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    PretrainModel(SmallNet(seed=3), ContrastConfig(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
