"""MiningFSS's equations by hand and by loops, what training does to its memory, and that it learns."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.clustering import kmeans
from fss.heads.parts import losses
from fss.heads.parts.mined import TrainingMemory, annotate, prototypes
from fss.training.step import MetaModule
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import CHANNELS, episode, head

PLAIN = {"mine": 0, "rectify": 0}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_masked_average_pooling_by_hand():
    """Eq. 2 with shares of cells: (1 + 3 * 4) / 4 where they are 1/4 and 3/4, and nothing under an empty mask."""
    tokens = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2)
    shares = torch.tensor([[[0.25, 0, 0, 0.75], [0, 0, 0, 0]]]).view(1, 2, 2, 2)
    assert prototypes(tokens, shares).flatten().tolist() == [3.25, 0.0]


def test_annotation_equals_loops():
    """Eq. 3: a cell's latent class is that of the largest cosine, however long the vectors are."""
    tokens, representatives = random(2, 4, 3, 3), random(3, 4, seed=1) * torch.tensor([[0.1], [1.0], [9.0]])
    found = annotate(tokens, representatives)
    assert torch.equal(found.sum(1), torch.ones(2, 3, 3))
    for n, y, x in np.ndindex(2, 3, 3):
        cosines = [F.cosine_similarity(tokens[n, :, y, x], one, dim=0) for one in representatives]
        assert found[n, int(torch.stack(cosines).argmax()), y, x] == 1


def test_representatives_are_the_mean_background_and_the_centres_of_foregrounds():
    shown = [(random(2, 5, 3, 3, seed=s), random(2, 2, 3, 3, seed=9 + s).abs()) for s in range(3)]
    shown[1][1][0, 1] = 0  # an image that shows no foreground has no say in it
    kept = TrainingMemory(channels=5, dim=4, clusters=2, images=0, momentum=0.9)
    kept.study(shown, seed=3)
    means = [prototypes(*part) for part in shown]
    backgrounds = torch.cat([part[:, 0] for part in means])
    foregrounds = torch.cat([means[0][:, 1], means[1][1:, 1], means[2][:, 1]])
    assert torch.allclose(kept.representatives[0], backgrounds.mean(0), atol=1e-6)
    centres, _ = kmeans.fit(foregrounds.numpy(), 2, seed=3)
    np.testing.assert_array_equal(kept.representatives[1:], centres)


def test_the_index_holds_each_images_regions_by_annotation():
    shown = [(random(2, 5, 3, 3, seed=s), random(2, 2, 3, 3, seed=9 + s).abs()) for s in range(3)]
    kept = TrainingMemory(channels=5, dim=4, clusters=3, images=5, momentum=0.9)
    kept.study(shown, seed=0)
    images = torch.cat([tokens for tokens, _ in shown])[:5]  # there is no room for the sixth
    assert torch.allclose(kept.images, images.mean((2, 3)), atol=1e-6)
    labels = annotate(images, kept.representatives).argmax(1)
    for image, name in np.ndindex(5, 4):
        inside = images[image][:, labels[image] == name]
        assert bool(kept.present[image, name]) == (inside.shape[1] > 0)
        expected = inside.mean(1) if inside.shape[1] else torch.zeros(5)
        assert torch.allclose(kept.regions[image, name], expected, atol=1e-6)


def test_too_few_foregrounds_for_the_clusters_are_named():
    with pytest.raises(ValueError, match=r"with 3 foregrounds or more and a background, got 2 and 2; lower model\.opt"):
        TrainingMemory(4, 4, 3, 0, 0.9).study([(random(2, 4, 3, 3), torch.ones(2, 2, 3, 3))], seed=0)


def test_the_global_background_is_a_moving_average_of_steps():
    """Eq. 6, divided by the weights so far: (.1 * .9 * 2 + .1 * 5) / (.1 * .9 + .1)."""
    kept = TrainingMemory(channels=1, dim=1, clusters=1, images=0, momentum=0.9)
    current = torch.tensor([[7.0], [7.0]])
    assert torch.equal(kept.fused(current, 0.5), current)  # nothing is known yet
    for values, there in (([1.0, 3.0], [1, 1]), ([5.0, 100.0], [1, 0]), ([8.0, 8.0], [0, 0])):
        kept.note(torch.tensor(values)[:, None], torch.tensor(there))
        kept.settle(kept.noted)
    mean = (0.1 * 0.9 * 2 + 0.1 * 5) / (0.1 * 0.9 + 0.1)
    assert float(kept.background / kept.weight) == pytest.approx(mean)
    assert kept.fused(current, 0.9).flatten().tolist() == pytest.approx([0.9 * mean + 0.1 * 7] * 2)  # Eq. 7
    assert kept.noted.tolist() == [0, 0]


def test_rectification_equals_loops():
    """Eqs. 8 and 9: the two most similar images, the most relevant present region of each, weights by cosines."""
    kept = TrainingMemory(channels=4, dim=3, clusters=2, images=6, momentum=0.9)
    kept.images[:5], kept.regions[:5] = random(5, 4), random(5, 3, 4, seed=1)
    kept.present[:5] = random(5, 3, seed=2) > -0.5
    weight, foreground, images = random(3, 4, seed=3), random(4, 3, seed=4), random(4, 4, seed=5)
    found = kept.rectified(foreground, images, lambda means: means @ weight.T, number=2, beta=0.2)
    moved = 0
    for m in range(4):
        scores = [float(F.cosine_similarity(images[m], one, dim=0)) for one in kept.images[:5]]
        best = []
        for image in np.argsort(scores)[-2:]:
            regions = [weight @ kept.regions[image, r] for r in range(3) if kept.present[image, r]]
            cosines = [float(F.cosine_similarity(region, foreground[m], dim=0)) for region in regions]
            best.append((max(*cosines, 0), regions[int(np.argmax(cosines))]))
        total = sum(share for share, _ in best)
        mean = sum(share / total * region for share, region in best) if total else foreground[m]
        assert torch.allclose(found[m], 0.8 * foreground[m] + 0.2 * mean, atol=1e-5)
        moved += total > 0
    assert moved > 1


def test_a_small_index_and_empty_foregrounds_change_nothing():
    kept = TrainingMemory(channels=4, dim=4, clusters=2, images=2, momentum=0.9)
    foreground, images = random(3, 4), random(3, 4, seed=1)
    assert torch.equal(kept.rectified(foreground, images, lambda x: x, number=4, beta=0.2), foreground)
    kept.study([(random(3, 4, 3, 3), torch.ones(3, 2, 3, 3))], seed=0)
    nothing = torch.zeros_like(foreground)
    assert torch.equal(kept.rectified(nothing, images, lambda x: x, number=4, beta=0.2), nothing)


def test_without_its_additions_it_is_the_prototype_readout():
    inputs = episode()
    bare = heads.build(
        "mining", {"levels": ["mid", "high"], "dim": 17, "background": 0, **PLAIN}, CHANNELS, corners=True
    )
    assert torch.allclose(
        bare(*inputs), heads.build("prototype", {"levels": ["mid", "high"]}, CHANNELS, corners=True)(*inputs), atol=1e-4
    )
    assert bare.studies == 0
    assert bare.noted() is None


def test_prototypes_of_shots_are_averaged():
    """Of each side over the shots that show it; the second shot is a distractor, the third all foreground."""
    _, support, masks = episode(shots=3)
    masks[:, 1, 1], masks[:, 2, 0] = 0, 0
    module = heads.build("mining", {"background": 0, **PLAIN}, CHANNELS, corners=True)
    shots = module.prepare({k: v[:, 0] for k, v in support.items()}, support, masks)[1]
    alone = torch.stack([prototypes(shots["tokens"][:, k], masks[:, k]) for k in range(3)], 1)
    found = module._prototypes(shots, masks)
    assert torch.allclose(found[:, 0], (alone[:, 0, 0] + alone[:, 1, 0]) / 2, atol=1e-6)
    assert torch.allclose(found[:, 1], (alone[:, 0, 1] + alone[:, 2, 1]) / 2, atol=1e-6)


def test_foregrounds_are_rectified_in_evaluation_alone():
    module, inputs = head("mining"), episode()
    plain = copy.deepcopy(module)
    plain.rectify = 0
    assert not torch.equal(module(*inputs), plain(*inputs))
    assert torch.equal(module.train()(*inputs), plain.train()(*inputs))


def test_the_loss_is_that_of_the_episode_plus_lambda_times_cross_entropy_of_the_annotation():
    query, support, masks = episode(shots=2)
    truth = episode(seed=50, grid=9)[2][:, 0]
    module = head("mining", mine=0.5).train()
    found = MetaModule(module, losses.dice, corners=True)(query, support, masks, truth)
    grids = torch.cat([query["mid"], support["mid"].flatten(0, 1)])
    tokens = F.normalize(grids, dim=1)
    labels = annotate(tokens, module.kept.representatives).argmax(1)
    expected = F.cross_entropy(module.mine(module.project(tokens)), labels)
    assert found["loss_mined"].item() == pytest.approx(expected.item(), rel=1e-4)
    episodic = MetaModule(head("mining", mine=0).train(), losses.dice, corners=True)(query, support, masks, truth)
    assert found["loss"].item() == pytest.approx((episodic["loss"] + 0.5 * expected).item(), rel=1e-4)


def test_learning_notes_backgrounds_and_evaluation_does_not():
    module, inputs = head("mining"), episode(shots=2)
    module.learn(*inputs)
    assert module.noted().abs().max() == 0
    module.train().learn(*inputs)
    current = module._shots(module.prepare(*inputs)[1], inputs[2])[0][:, :, 0].mean(1)
    assert float(module.noted()[0]) == 3
    assert torch.allclose(module.noted()[1:], current.sum(0), atol=1e-5)


def test_what_parts_of_a_batch_note_adds_up_to_what_the_batch_does():
    (query, support, masks), whole = episode(shots=2), head("mining").train()
    parts = [copy.deepcopy(whole) for _ in range(3)]
    whole.learn(query, support, masks)
    for b, part in enumerate(parts):
        part.learn({k: v[[b]] for k, v in query.items()}, {k: v[[b]] for k, v in support.items()}, masks[[b]])
    together = sum(part.noted() for part in parts)
    assert torch.allclose(together, whole.noted(), atol=1e-5)


def test_no_gradient_reaches_the_global_background():
    module, inputs = head("mining", background=1.0, mine=0).train(), episode()
    module.learn(*inputs)
    module.settle(module.noted())
    sides = module._prototypes(module.prepare(*inputs)[1], inputs[2])
    assert torch.autograd.grad(sides[:, 0].sum(), module.project.weight, retain_graph=True)[0].abs().max() == 0
    assert torch.autograd.grad(sides[:, 1].sum(), module.project.weight)[0].abs().max() > 0


def test_the_memory_stays_exact_when_weights_are_rounded():
    module = head("mining")
    module.kept.background += 1 + 2.0**-20
    rounded = copy.deepcopy(module).bfloat16()
    assert rounded.project.weight.dtype == torch.bfloat16
    for name, value in module.kept.named_buffers():
        assert torch.equal(rounded.kept.get_buffer(name), value), name


def test_its_memory_is_saved_with_the_head():
    module = head("mining").train()
    module.learn(*episode())
    module.settle(module.noted())
    other = heads.build(
        "mining", {"dim": 12, "width": 8, "clusters": 3, "images": 6, "rectify": 2}, CHANNELS, corners=True, seed=1
    )
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(*episode(seed=3)), module.eval()(*episode(seed=3)))


def test_training_wants_a_head_that_has_studied():
    module = heads.build("mining", {}, CHANNELS, corners=True)
    with pytest.raises(RuntimeError, match=r"has studied training images, call study first; model.options.mine=0 and"):
        module.learn(*episode())


@pytest.mark.parametrize(("residual", "share"), [("none", 0.1), ("prototype", 0.6)])
def test_it_learns_to_project_nuisances_out(residual, share):
    before, after = learns("mining", nuisance=2, dim=8, width=8, residual=residual)
    assert after.loss < share * before.loss
    assert after.iou > before.iou + 0.15


def test_latent_classes_help_where_nuisances_are_strong():
    without, mined = (learns("mining", nuisance=3, dim=8, width=8, mine=mine)[1] for mine in (0, 1))
    assert mined.iou > without.iou + 0.05
