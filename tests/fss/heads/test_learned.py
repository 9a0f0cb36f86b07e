"""What every head that learns promises its trainer: predictions, auxiliary losses, gradients, and nothing random."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fss import heads
from fss.backbones import Features
from fss.heads.parts import losses
from fss.heads.parts.capabilities import Silences
from fss.heads.parts.head import Head
from fss.training.step import MetaModule
from tests.fss.heads.test_heads import CHANNELS, LEARNED, episode, head, is_on_grid

SILENT = [name for name in LEARNED if isinstance(head(name), Silences)]


@pytest.fixture(autouse=True)
def _dropout_may_draw() -> Iterator[None]:
    """Training draws from torch's generator; it is put back."""
    with torch.random.fork_rng(devices=[]):
        yield


def figures(module: Head, seed: int = 0, shots: int = 2) -> dict[str, torch.Tensor]:
    """Of one training step on random episodes, of which the last has a distractor among its supports."""
    torch.manual_seed(seed)  # for dropout
    query, support, masks = episode(shots=shots, seed=seed)
    masks[-1, 0, 0], masks[-1, 0, 1] = 1, 0
    truth = episode(seed=50 + seed, grid=9)[2][:, 0]
    return MetaModule(module, losses.cross_entropy_dice, corners=True)(query, support, masks, truth)


def descend(module: nn.Module, loss: torch.Tensor, lr: float = 1e-3) -> None:
    """A step by the signs of the gradients."""
    module.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(lr * parameter.grad.sign())


def silent_parameters(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]


@pytest.mark.parametrize("name", LEARNED)
def test_learning_scores_the_prediction_of_forward(name):
    module, inputs = head(name, steps=1), episode(shots=2)
    logits, auxiliary = module.learn(*inputs)
    assert torch.equal(logits, module(*inputs))
    assert len({part.name for part in auxiliary}) == len(auxiliary)
    for part in auxiliary:
        assert part.logits.dtype == torch.float32
        assert part.logits.shape[1] == 2 or part.loss is not None
        assert part.logits.requires_grad
        assert part.weight > 0
        if part.target is not None:
            assert part.target.shape[:2] == part.logits.shape[:2]
            assert not part.target.requires_grad


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_kept_of_images_makes_the_same_prediction(name):
    """Images one by one through `embed`, `focus` and `show`, put together for `match`, as evaluation does it."""
    module, (query, support, masks) = head(name, steps=2), episode(shots=2)

    def together(parts: list[Features]) -> Features:
        return {k: torch.cat([part[k] for part in parts]) for k in parts[0]}

    def one(features: Features, *at: int) -> Features:
        return {k: v[at][None] for k, v in features.items()}

    seen = together([module.focus(module.embed(one(query, b))) for b in range(3)])
    shots = together([module.embed(one(support, b, k)) for b in range(3) for k in range(2)])
    shots = {k: v.unflatten(0, (3, 2)) for k, v in shots.items()}
    shown = together([module.show(one(shots, b), masks[[b]]) for b in range(3)])
    found = module.match(seen, shown, masks)
    assert torch.allclose(found, module(query, support, masks), atol=1e-4)


@pytest.mark.parametrize(("shots", "residual"), [(1, "none"), (2, "none"), (2, "smoothed")])
@pytest.mark.parametrize("name", LEARNED)
def test_every_parameter_gets_a_gradient_in_training(name, shots, residual):
    """Within two steps, for a last layer of zeros lets nothing through before it has moved."""
    module = head(name, residual=residual).train()
    for step in range(2):
        descend(module, figures(module, step, shots)["loss"])
    assert silent_parameters(module) == []


@pytest.mark.parametrize("name", LEARNED)
def test_auxiliary_losses_are_shown_and_finite(name):
    module = head(name).train()
    found = figures(module)
    expected = {f"loss_{part.name}" for part in module.learn(*episode(shots=2))[1]}
    assert {key for key in found if key.startswith("loss_")} == expected
    assert all(value.isfinite() for value in found.values())


@pytest.mark.parametrize("name", LEARNED)
def test_training_is_a_function_of_torchs_generator(name):
    """So that a run that goes on from a checkpoint repeats its losses; evaluation draws nothing at all."""
    module = head(name, steps=1).train()
    first, again = figures(module), figures(module)
    assert torch.equal(first["loss"], again["loss"])
    module.eval()
    inputs, before = episode(shots=2), torch.get_rng_state()
    assert torch.equal(module(*inputs), module(*inputs))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", LEARNED)
def test_training_in_bfloat16_is_nearly_that_in_float32(name):
    module = head(name, steps=2)
    rounded = copy.deepcopy(module).bfloat16()
    exact, found = figures(module)["loss"], figures(rounded)["loss"]
    assert found.dtype == torch.float32
    assert abs(found - exact) < 0.03 * exact
    descend(rounded, found)
    assert silent_parameters(rounded) == []


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("value", [(0.0, 0.0), (1.0, 0.0)], ids=["void", "background"])
def test_supports_without_foreground_give_finite_losses_and_gradients(name, value):
    module = head(name, steps=1).train()
    query, support, masks = episode(shots=2)
    masks[0, :, 0], masks[0, :, 1] = value
    found = MetaModule(module, losses.cross_entropy_dice, corners=False)(query, support, masks, torch.zeros(3, 2, 5, 5))
    found["loss"].backward()
    assert all(v.isfinite() for v in found.values())
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(("grid", "shape"), [(1, (1, 1)), (7, (7, 7)), (6, (4, 6))])
def test_any_grid(name, grid, shape):
    query, support, masks = episode(grid=grid, shots=2)
    cut = shape[0]
    query, support = (
        {k: v[..., : (2 if k == "low" else 1) * cut, :] for k, v in features.items()} for features in (query, support)
    )
    found = head(name)(query, support, masks[..., :cut, :])
    assert found.shape[:2] == (3, 2)
    assert is_on_grid(found, *shape)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_head_says_nothing_at_first_and_learns_all_the_same(name):
    module, inputs = head(name), episode(shots=2)
    module.silence()
    assert module(*inputs).abs().max() == 0
    module.train()
    descend(module, figures(module, 0)["loss"])
    assert module(*inputs).abs().max() > 0
    descend(module, figures(module, 1)["loss"])
    assert silent_parameters(module) == []


@pytest.mark.parametrize("name", LEARNED)
def test_transformers_are_submodules_and_not_the_whole_head(name):
    module = heads.build(name, {}, CHANNELS, corners=True)
    parts = [module.get_submodule(part) for part in module.transformers]
    inside = sum(p.numel() for part in parts for p in part.parameters())
    assert inside < sum(p.numel() for p in module.parameters())
    assert all(any(True for _ in part.parameters()) for part in parts)
