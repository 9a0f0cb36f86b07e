"""CyCTR's cycles and draws by loops, its attention by hand, and that it learns."""

import pytest
import torch

from fss.heads.cyctr import CycleAttention, consistent, draw
from fss.heads.parts.attention import Attention
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import episode, head


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cycles_equal_loops():
    q, k, labels = numbers(0, 2, 3, 11, 4), numbers(1, 2, 3, 8, 4), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    used = torch.ones(2, 8, dtype=torch.bool)
    used[0, 2], used[0, 7], used[1, 4] = False, False, False
    found = consistent(q, k, labels, used)
    assert found.shape == (2, 3, 8)
    outcomes = set()
    for b in range(2):
        there = [j for j in range(8) if used[b, j]]
        for h in range(3):
            for j in there:
                cell = max(range(11), key=lambda i: float(q[b, h, i] @ k[b, h, j]))
                back = max(there, key=lambda m: float(q[b, h, cell] @ k[b, h, m]))
                assert bool(found[b, h, j]) == bool(labels[back] == labels[j])
                outcomes.add(bool(found[b, h, j]))
    assert outcomes == {True, False}


def test_cycles_by_hand():
    """Query cell 0 is nearest to all; of the supports, cell 0 is nearest to it, so only its own side is led home."""
    q = torch.tensor([[2.0, 0.0], [0.0, 0.1]]).view(1, 1, 2, 2)
    k = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 1, 4, 2)
    found = consistent(q, k, torch.tensor([1, 1, 0, 0]), torch.ones(1, 4, dtype=torch.bool))
    assert found[0, 0].tolist() == [True, True, False, True]


def test_some_cell_is_always_consistent():
    for seed in range(20):
        labels = torch.arange(6) % 2
        used = torch.ones(4, 6, dtype=torch.bool)
        assert consistent(numbers(seed, 4, 2, 9, 3), numbers(seed + 99, 4, 2, 6, 3), labels, used).any(2).all()


def test_what_is_shut_out_is_not_heard():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cyclic, ordinary = CycleAttention(8, 2, release=0.1).eval(), CycleAttention(8, 2, release=None)
    ordinary.load_state_dict(cyclic.state_dict())
    x, y = numbers(0, 1, 7, 8), numbers(1, 1, 6, 8)
    labels, used = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([[True] * 5 + [False]])
    found = cyclic(x, y, labels, used)

    q, k, v = (layer(t)[0].unflatten(1, (2, 4)) for layer, t in ((cyclic.query, x), (cyclic.key, y), (cyclic.value, y)))
    kept = consistent(q.transpose(0, 1)[None], k.transpose(0, 1)[None], labels, used)[0] & used
    assert not kept[:, :5].all()
    heads = []
    for h in range(2):
        weights = (q[:, h] @ k[kept[h], h].T / 2).softmax(1)
        heads.append(weights @ v[kept[h], h])
    assert torch.allclose(found[0], cyclic.out(torch.cat(heads, 1)), atol=1e-5)
    assert torch.allclose(ordinary(x, y, labels, used), Attention.forward(ordinary, x, y[:, :5], y[:, :5]), atol=1e-5)


def test_training_lets_some_in_again():
    """With a share of all, attention is as without cycles; with none, as in evaluation."""
    x, y, labels, used = numbers(0, 1, 7, 8), numbers(1, 1, 6, 8), torch.arange(6) % 2, torch.ones(1, 6).bool()
    with torch.random.fork_rng(devices=[]):
        module = CycleAttention(8, 2, release=1.0)
        everything, shut = module(x, y, labels, used), module.eval()(x, y, labels, used)
        module.train().release = 0.0
        assert torch.equal(module(x, y, labels, used), shut)
        module.release = None
        assert torch.equal(module(x, y, labels, used), everything)
    assert not torch.allclose(everything, shut)


def test_draws_by_hand():
    """Side 0 has cells 0 to 2; side 1 has no half anywhere, so its largest share stands for it: cell 1."""
    shares = torch.tensor([[[0.9, 0.6, 0.5, 0.0], [0.1, 0.4, 0.3, 0.0]]])
    scores = torch.tensor([[0.1, 0.3, 0.2, 0.9]])
    index, labels, used = draw(shares, scores, (2, 3))
    assert index[0, :2].tolist() == [1, 2]
    assert labels.tolist() == [0, 0, 1, 1, 1]
    assert used[0].tolist() == [True, True, True, False, False]
    assert index[0, 2] == 1


def test_a_void_cell_is_never_drawn():
    _, _, masks = episode(shots=2)
    shares = masks.transpose(1, 2).flatten(2)
    index, labels, used = draw(shares, torch.rand(3, 50, generator=torch.Generator().manual_seed(0)), (50, 50))
    for b in range(3):
        for side in range(2):
            drawn = set(index[b, used[b] & (labels == side)].tolist())
            assert drawn == {i for i in range(50) if shares[b, side, i] >= 0.5}


def test_drawing_fewer_cells_than_there_are_is_the_same_every_time_and_new_in_training():
    module = head("cyctr", steps=1, foreground_tokens=3, background_tokens=3, dropout=0, reduce_dropout=0)
    module.classify[2].p = 0.0
    inputs = episode(shots=2)
    assert torch.equal(module(*inputs), module(*inputs))
    module.train()
    with torch.random.fork_rng(devices=[]):
        first, second = module(*inputs), module(*inputs)
    assert not torch.allclose(first, second, atol=1e-6)


def test_cycles_and_dense_attention_are_options():
    inputs = episode(shots=2)
    found = [head("cyctr", **chosen)(*inputs) for chosen in ({}, {"cycle": False}, {"self_attention": "dense"})]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("attention", ["deformable", "dense"])
def test_it_learns(attention):
    before, after = learns(
        "cyctr", dim=16, heads=2, points=4, foreground_tokens=10, background_tokens=10, reduce_dropout=0.1,
        self_attention=attention,
    )  # fmt: skip
    assert after.loss < 0.4 * before.loss
    assert after.iou > 0.8 > 0.3 > before.iou
