"""INSID3 against a second writing of the paper's steps, and a scene whose answer is plain."""

import numpy as np
import pytest
import torch

from fss import heads
from fss.heads.parts.agglomeration import agglomerate

CHANNELS = {"low": 2, "mid": 2, "high": 8}


def blocks(seed: int, rows: int = 6) -> torch.Tensor:
    """(1, 8, 6, 6): some of five looks in blocks of 2 x 3 cells, and noise."""
    g = torch.Generator().manual_seed(seed)
    looks = torch.randn(5, 8, generator=torch.Generator().manual_seed(77))
    plan = torch.randint(5, (rows // 2, 2), generator=g).repeat_interleave(2, 0).repeat_interleave(3, 1)
    return (looks[plan] + 0.7 * torch.randn(rows, 6, 8, generator=g)).permute(2, 0, 1)[None]


def episode(seed: int, shots: int):
    """A query, supports, and masks of a rectangle each."""
    masks = torch.zeros(1, shots, 2, 6, 6)
    for shot in range(shots):
        top, left = (seed + shot) % 3, (seed + 2 * shot) % 4
        masks[0, shot, 1, top : top + 3, left : left + 2] = 1
    masks[:, :, 0] = 1 - masks[:, :, 1]
    support = torch.stack([blocks(100 * seed + shot + 1) for shot in range(shots)], dim=1)
    return {"high": blocks(100 * seed)}, {"high": support}, masks


def rows(features: torch.Tensor) -> np.ndarray:
    """(cells, C) float64 of (C, h, w), of length 1."""
    values = features.flatten(1).T.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def position_of(head) -> np.ndarray:
    """(C, k): the directions that an anchor takes out."""
    return head.axes[:, : int(head.taken)].double().numpy()


def by_hand(query, support, masks, position: np.ndarray, tau: float, merge: float) -> np.ndarray:
    """(cells,) bool, cell by cell and segment by segment."""

    def compared(tokens: np.ndarray) -> np.ndarray:
        return np.stack([unit(token - position @ (position.T @ token)) for token in tokens])

    plain, tokens = rows(query["high"][0]), compared(rows(query["high"][0]))
    shown = [compared(rows(features)) for features in support["high"][0]]
    inside = [mask.flatten().numpy() > 0.5 for mask in masks[0, :, 1]]
    foreground = unit(np.mean([s[i].mean(axis=0) for s, i in zip(shown, inside, strict=True)], axis=0))
    alike = tokens @ foreground
    yes = sum(i[np.argmax(tokens @ s.T, axis=1)].astype(int) for s, i in zip(shown, inside, strict=True))
    candidate = (alike > 0) & (yes >= len(shown) / 2)
    labels = agglomerate(plain.astype(np.float32), tau)
    cells = [labels == k for k in range(labels.max() + 1)]
    matched = [k for k, c in enumerate(cells) if candidate[c].any()]
    if not matched:
        return np.zeros(len(tokens), dtype=bool)
    seed = max(matched, key=lambda k: unit(tokens[cells[k]].mean(axis=0)) @ foreground)
    answer = np.zeros(len(tokens), dtype=bool)
    for k, own in enumerate(cells):
        intra = unit(plain[own].mean(axis=0)) @ unit(plain[cells[seed]].mean(axis=0))
        share = 1.0 if k == seed else candidate[own].mean()
        answer[own] = alike[own].mean() * intra * share > merge
    return answer


@pytest.mark.parametrize("shots", [1, 2, 3])
@pytest.mark.parametrize("merge", [0.0, 0.2])
def test_masks_equal_a_second_writing(shots, merge):
    head = heads.build("insid3", {"position": 0.25, "merge": merge}, CHANNELS, corners=True)
    head.see_blank({"high": blocks(5)})
    answers = []
    for seed in range(12):
        inputs = episode(seed, shots)
        found = head(*inputs)
        answers.append(((found[0, 1] - found[0, 0]) > 0).flatten().numpy())
        expected = by_hand(*inputs, position_of(head), head.tau, merge)
        assert (answers[-1] == expected).all()
    sizes = [int(answer.sum()) for answer in answers]
    assert len(set(sizes)) > 3
    assert max(sizes) < 36


def test_all_that_looks_like_the_thing_is_found_and_nothing_else():
    looks = torch.eye(8)
    plan = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 1, 0], [3, 3, 1, 0]])
    query = {"high": looks[plan].permute(2, 0, 1)[None]}
    support = {"high": looks[torch.tensor([[4, 4, 4, 4], [4, 0, 0, 4], [4, 0, 0, 4], [5, 5, 5, 5]])].permute(2, 0, 1)}
    masks = torch.zeros(1, 1, 2, 4, 4)
    masks[0, 0, 1, 1:3, 1:3] = 1
    masks[0, 0, 0] = 1 - masks[0, 0, 1]
    head = heads.build("insid3", {"position": 0.0, "scale": 4.0}, CHANNELS, corners=True)
    found = head(query, {"high": support["high"][None, None]}, masks)
    assert torch.equal(found[0, 1] - found[0, 0], torch.where(plan == 0, 2.0, -2.0))


def test_where_nothing_is_like_the_thing_the_answer_is_empty():
    query, support, masks = episode(0, 1)
    head = heads.build("insid3", {"position": 0.0}, CHANNELS, corners=True)
    assert (head(query, support, torch.zeros_like(masks))[:, 1] < 0).all()
    opposite = {"high": -support["high"][:, 0]}
    assert (head(opposite, support, masks)[:, 1] < 0).all()
