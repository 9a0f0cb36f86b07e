"""Randomness by name: pure, and independent of process and order."""

import subprocess
import sys

import numpy as np
import torch

from fss import rng


def test_mix_depends_on_seed_and_names_alone():
    assert rng.mix(0, "a", 1) == rng.mix(0, "a", 1)
    others = {rng.mix(1, "a", 1), rng.mix(0, "b", 1), rng.mix(0, "a", 2), rng.mix(0, "a"), rng.mix(0, 1, "a")}
    assert len(others | {rng.mix(0, "a", 1)}) == 6


def test_names_are_kept_apart():
    assert rng.mix(0, "ab", "c") != rng.mix(0, "a", "bc")
    assert rng.mix(1, 23) != rng.mix(12, 3)


def test_mix_is_the_same_in_every_process_and_has_63_bits():
    assert rng.mix(0, "a", 1) == 5295354729880077902
    code = "from fss import rng; print(rng.mix(0, 'a', 1))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == rng.mix(0, "a", 1)
    draws = [rng.mix(0, i) for i in range(2000)]
    assert min(draws) >= 0
    assert 2**62 < max(draws) < 2**63
    assert len(set(draws)) == 2000


def test_draws_are_uniform_over_shards():
    counts = np.bincount([rng.mix(3, "image", i) % 8 for i in range(8000)], minlength=8)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_generators_repeat():
    assert np.array_equal(rng.numpy_rng(1, "x").random(4), rng.numpy_rng(1, "x").random(4))
    assert not np.array_equal(rng.numpy_rng(1, "x").random(4), rng.numpy_rng(1, "y").random(4))
    first = torch.rand(4, generator=rng.torch_rng(1, "x"))
    assert torch.equal(first, torch.rand(4, generator=rng.torch_rng(1, "x")))
    assert not torch.equal(first, torch.rand(4, generator=rng.torch_rng(2, "x")))
