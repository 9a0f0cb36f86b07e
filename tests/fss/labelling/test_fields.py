"""Embeddings in few bytes: their cosines survive, and the directions are the best ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fss.labelling import fields


def embeddings(number=6, dimensions=40, rank=8, noise=0.02, seed=0):
    """(number, 5, 5, D) embeddings of length 1 that lie near a plane of `rank` dimensions."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rank, dimensions, generator=generator)
    mixed = torch.randn(number, 5, 5, rank, generator=generator) @ base
    return F.normalize(mixed + noise * torch.randn(mixed.shape, generator=generator), dim=-1)


def cosines(rows):
    flat = rows.reshape(-1, rows.shape[-1]).numpy()
    return flat @ flat.T


def kept(every, along):
    return torch.stack([fields.unit(fields.rounded(field, along)) for field in every])


def test_cosines_survive_in_a_byte_a_dimension():
    every = embeddings()
    along = fields.directions(every.reshape(-1, 40).numpy(), 8)
    values = fields.rounded(every[0], along)
    assert (values.dtype, values.shape) == (np.int8, (5, 5, 8))
    np.testing.assert_allclose(cosines(kept(every, along)), cosines(every), atol=0.02)


def test_the_directions_are_orthonormal_and_better_than_any_others():
    every = embeddings(rank=40)
    rows = every.reshape(-1, 40).numpy()
    along = fields.directions(rows, 10)
    np.testing.assert_allclose(along.T @ along, np.eye(10), atol=1e-5)
    others = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 10)))[0]
    assert ((rows @ along) ** 2).sum() > ((rows @ others) ** 2).sum()
    values = np.linalg.eigvalsh(rows.T @ rows)
    assert ((rows @ along) ** 2).sum() == pytest.approx(values[-10:].sum(), rel=1e-5)  # none holds more


def test_what_has_no_more_dimensions_is_only_rounded():
    every = embeddings(dimensions=12, rank=12)
    along = fields.directions(every.reshape(-1, 12).numpy(), 12)
    np.testing.assert_array_equal(along, np.eye(12))
    np.testing.assert_allclose(cosines(kept(every, along)), cosines(every), atol=0.02)


def test_the_extremes_of_a_byte():
    ends = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]])
    values = fields.rounded(ends, np.eye(2, dtype=np.float32))
    assert values.tolist() == [[[127, 0], [-127, 0], [0, 0]]]
    torch.testing.assert_close(fields.unit(values), ends)
