"""Clusters of painted objects: who matches whom, before and after a fit, and what a fitted copy hands over."""

import numpy as np
import pytest
import torch

from fss import heads
from fss.heads.cluster_match import ClusterMatch

CHANNELS = {"high": 6}
GRID = 7
NAMES = "abc"


def photo(kind: str, seed: int) -> torch.Tensor:
    """(6, 7, 7) features: on a common ground a square of one of three kinds."""
    g = torch.Generator().manual_seed(seed)
    grid = torch.zeros(6, GRID, GRID)
    grid[0] = 1
    y, x = torch.randint(1, GRID - 3, (2,), generator=g).tolist()
    grid[:, y : y + 3, x : x + 3] = torch.eye(6)[1 + NAMES.index(kind)][:, None, None]
    return grid + 0.05 * torch.randn(grid.shape, generator=g)


def features(kinds: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"high": torch.stack([photo(kind, seed + i) for i, kind in enumerate(kinds)])}


def made(**options: object) -> ClusterMatch:
    found = heads.build("cluster_match", {"levels": ["high"]} | options, CHANNELS, corners=True)
    assert isinstance(found, ClusterMatch)
    return found


def descriptions(head: ClusterMatch, kinds: str = NAMES * 6) -> np.ndarray:
    return head.describe(head.embed(features(kinds, seed=100))).numpy()


def fitted(**options) -> ClusterMatch:
    head = made(clusters=3, **options)
    head.fit(descriptions(head), seed=0)
    return head


def answer(head: torch.nn.Module, query: str, supports: str) -> torch.Tensor:
    """(7, 7) bool answer to one episode; the supports' masks say nothing on purpose."""
    support = {level: v[None] for level, v in features(supports, seed=50).items()}
    logits = head(features(query), support, torch.zeros(1, len(supports), 2, GRID, GRID))
    return logits[0, 1] > logits[0, 0]


def square(query: str) -> torch.Tensor:
    return photo(query, 0)[0] < 0.5


@pytest.mark.parametrize("query", NAMES)
@pytest.mark.parametrize("support", NAMES)
def test_the_object_is_the_answer_if_its_cluster_is_the_supports(query, support):
    found = answer(fitted(), query, support)
    assert torch.equal(found, square(query) if query == support else torch.zeros(GRID, GRID, dtype=torch.bool))


@pytest.mark.parametrize(("supports", "matches"), [("aab", "a"), ("bab", "b"), ("ab", "ab"), ("abcc", "c")])
def test_the_most_frequent_cluster_of_the_supports_counts(supports, matches):
    head = fitted()
    assert "".join(q for q in NAMES if answer(head, q, supports).any()) == matches


def test_without_matching_it_is_the_saliency_baseline():
    head, saliency = fitted(match=False), heads.build("saliency", {"levels": ["high"]}, CHANNELS, corners=True)
    assert torch.equal(answer(head, "a", "b"), square("a"))
    query = features("abc")
    assert torch.equal(head.embed(query)["margin"], saliency.embed(query)["margin"])


def test_the_description_is_the_mean_of_the_object():
    head = made()
    found = descriptions(head, "ccc")
    assert found.dtype == np.float32
    assert found.shape == (3, 6)
    assert np.abs(found - np.eye(6)[3]).max() < 0.1


def test_a_photo_without_objects_is_described_by_its_mean():
    head = made()
    plain = {"high": torch.ones(1, 6, GRID, GRID)}
    assert torch.allclose(head.describe(head.embed(plain)), torch.full((1, 6), 6**-0.5))


def test_it_must_be_fitted_first():
    head = made(clusters=3)
    with pytest.raises(RuntimeError, match="expected a fitted head: call fit"):
        answer(head, "a", "a")


def test_a_fitted_state_makes_another_copy_fitted():
    head, other = fitted(), made(clusters=3)
    other.load_state_dict(head.state_dict())
    assert torch.equal(answer(other, "b", "b"), answer(head, "b", "b"))
    assert not answer(other, "b", "c").any()


def test_the_same_seed_finds_the_same_clusters():
    first, again = fitted().state_dict(), fitted().state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("shape", [(2, 6), (9, 5), (9,)])
def test_descriptions_that_do_not_fit_are_refused(shape):
    head = made(clusters=3)
    with pytest.raises(ValueError, match=r"expected descriptions \(3 or more, 6\).*lower model.options.clusters"):
        head.fit(np.zeros(shape, np.float32), seed=0)
    assert not head.fitted
