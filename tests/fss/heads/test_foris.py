"""FoRIS against a second writing of the paper's equations with the code's weights, gate included."""

import numpy as np
import pytest
import torch

from fss import heads
from fss.heads.parts.agglomeration import agglomerate
from tests.fss.heads.test_insid3 import CHANNELS, blocks, episode, position_of, rows, unit


def mean_looks(tokens: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([unit(tokens[labels == k].mean(axis=0)) for k in range(labels.max() + 1)])


def stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(values.max() - values.min(), 1e-6)


def soft_maximum(cosines: np.ndarray) -> np.ndarray:
    return 0.07 * np.log(np.exp(cosines / 0.07).sum(axis=1))


def cut(tokens: np.ndarray, tau: float) -> np.ndarray:
    length = np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
    return agglomerate((tokens / length).astype(np.float32), tau)


def each_unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def by_hand(query, support, masks, position: np.ndarray, tau: float) -> np.ndarray:
    """(cells,) margins, segment by segment."""
    tokens, shown = rows(query["high"][0]), [rows(features) for features in support["high"][0]]
    inside = [mask.flatten().numpy() > 0.5 for mask in masks[0, :, 1]]

    def foreground() -> np.ndarray:
        return unit(np.mean([s[i].mean(axis=0) for s, i in zip(shown, inside, strict=True)], axis=0))

    if foreground() @ unit(tokens.mean(axis=0)) < 0.8:
        across = np.eye(len(position)) - position @ position.T
        tokens, shown = each_unit(tokens @ across), [each_unit(s @ across) for s in shown]
    ours = np.concatenate([s[i] for s, i in zip(shown, inside, strict=True)])
    others = np.concatenate([s[~i] for s, i in zip(shown, inside, strict=True)])
    mean = foreground()
    looks = mean_looks(ours, cut(ours, tau))
    hardest = np.argsort(-others @ mean)[: max(1, int(0.2 * len(others)))]
    background = unit(others[hardest].mean(axis=0))
    likeness = soft_maximum(tokens @ looks.T)
    other = tokens @ unit(background - (background @ mean) * mean)
    gate = 1 / (1 + np.exp(-(likeness - tokens @ background)))

    vote = np.mean([i[np.argmax(tokens @ s.T, axis=1)] for s, i in zip(shown, inside, strict=True)], axis=0)
    every_second = np.zeros((6, 6), dtype=bool)
    every_second[::2, ::2] = True
    candidates = (vote >= 0.5) | every_second.flatten()
    colour = query["colour"][0].flatten(1).T.numpy()
    place = np.stack(np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 6), indexing="ij")).reshape(2, -1).T
    cued = cut(np.concatenate([tokens, 0.35 * each_unit(colour), 0.2 * each_unit(place)], axis=1), tau)
    segments = [cued == k for k in range(cued.max() + 1)]
    share = np.array([candidates[own].mean() for own in segments])
    affinity = np.array([(tokens[own] @ mean).mean() for own in segments]) * share
    seed = max(np.flatnonzero(share), key=lambda k: affinity[k])
    means = mean_looks(tokens, cued)
    score = affinity * np.maximum(means @ means[seed], 0)
    score[seed] = max(score.max(), 1e-6)
    prior = stretched(score)[cued]

    response = likeness - 0.55 * other + 0.2 * (vote - 0.5) + 0.25 * (prior - 0.5)
    fg, bg = stretched(likeness), stretched(other)
    penalty = 0.08 * (abs(fg - vote) + abs(fg - prior)) + 0.05 * np.minimum(fg, bg)
    response -= np.minimum(penalty * np.maximum(1 - 2 * abs(fg - 0.5), 0) ** 1.5, 0.22)
    labels = cut(gate[:, None] * tokens, tau)
    for k in range(labels.max() + 1):
        own = labels == k
        pure, both = max(fg[own].mean() - bg[own].mean(), 0), min(fg[own].mean(), bg[own].mean())
        response[own] += max(0.2 * pure - 0.18 * both, -0.12)
    return stretched(response) - 0.5


def coloured(inputs, seed: int):
    query, support, masks = inputs
    colour = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return query | {"colour": colour}, support, masks


@pytest.mark.parametrize("shots", [1, 3])
def test_margins_equal_a_second_writing(shots):
    head = heads.build("foris", {"position": 0.25, "scale": 1.0}, CHANNELS, corners=True)
    head.see_blank({"high": blocks(5)})
    for seed in range(12):
        inputs = coloured(episode(seed, shots), seed)
        found = head(*inputs)
        expected = by_hand(*inputs, position_of(head), head.tau)
        assert np.allclose((found[0, 1] - found[0, 0]).flatten(), expected, atol=1e-4)


def test_position_stays_where_the_thing_is_like_the_whole_query():
    query, _, masks = coloured(episode(0, 1), 0)
    query["high"] = blocks(0)[..., :1, :1] + 0.01 * blocks(0)
    support = {"high": query["high"][None]}
    plain = heads.build("foris", {"position": 0.0}, CHANNELS, corners=True)
    head = heads.build("foris", {"position": 0.25}, CHANNELS, corners=True)
    head.see_blank({"high": blocks(5)})
    assert torch.equal(head(query, support, masks), plain(query, support, masks))
    other, support, masks = coloured(episode(1, 1), 1)
    assert not torch.equal(head(other, support, masks), plain(other, support, masks))


def test_colours_part_what_tokens_do_not():
    head = heads.build("foris", {"position": 0.0, "tau": 0.94}, CHANNELS, corners=True)
    features = {"high": torch.ones(1, 8, 6, 6)}
    assert head.focus(head.embed(features))["cued"].max() == 0
    colour = torch.zeros(1, 3, 6, 6)
    colour[:, 0, :3], colour[:, 2, 3:] = 1, 1
    cued = head.focus(head.embed(features | {"colour": colour}))["cued"][0, 0].view(6, 6)
    assert len(cued[:3].unique()) == len(cued[3:].unique()) == 1
    assert cued.max() == 1


def test_a_thing_that_no_support_shows_is_nowhere():
    query, support, masks = episode(0, 2)
    head = heads.build("foris", {"position": 0.0}, CHANNELS, corners=True)
    assert (head(query, support, torch.zeros_like(masks))[:, 1] < 0).all()
