"""Nearest centroids against plain loops, however they are computed."""

import builtins

import numpy as np
import pytest
import torch

from fss.clustering import assign as module
from fss.clustering.kmeans import assign, nearest
from tests.fss.points import integers, loop_assign, points


@pytest.fixture(params=["faiss", "blocked"])
def _backend(request, monkeypatch):
    """Both ways of `assign`: with FAISS and without."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
        return
    real = builtins.__import__

    def without_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_faiss)


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize(("number", "clusters"), [(1, 1), (7, 3), (200, 9), (50, 80)])
def test_assign_equals_a_loop(number, clusters):
    rows, centroids = points(number), points(clusters, seed=1)
    labels, distances = assign(rows, centroids)
    expected, squares = loop_assign(rows, centroids)
    assert labels.tolist() == expected
    assert labels.dtype == np.int64
    assert distances.dtype == np.float32
    assert np.allclose(distances, squares, atol=1e-4)
    assert (distances >= 0).all()


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("number", [3, 200])
def test_ties_go_to_the_lower_label(number):
    rows = integers(number, 3, 0)
    centroids = np.concatenate([integers(6, 3, 1)] * 2)
    assert assign(rows, centroids)[0].tolist() == loop_assign(rows, centroids)[0]


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_label_depends_on_its_point_alone(threads):
    """FAISS alone gives equal rows of one large call two labels, see findings/faiss_equal_rows_two_labels.sh."""
    centroids = points(512, 384)
    midway = (centroids[3] + centroids[7]) / 2
    (expected, _), before = loop_assign(midway[None], centroids), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for number in (1, 19, 333, 334, 1000):
            labels, distances = assign(np.repeat(midway[None], number, axis=0), centroids)
            assert set(labels.tolist()) == set(expected)
            assert len(set(distances.tolist())) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("_backend")
def test_of_equal_centroids_the_first_has_all_points():
    """In calls of any size, of points that lie near them and far away."""
    centroids = np.concatenate([points(300, 128)] * 2)
    rows = np.concatenate([points(400, 128, seed=1), centroids])
    labels = assign(rows, centroids)[0]
    assert labels.max() < 300
    assert labels[400:].tolist() == [*range(300)] * 2
    for size in (1, 7, 350):
        assert np.concatenate([assign(part, centroids)[0] for part in np.split(rows, [size])]).tolist() == [*labels]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_torch_path_does_not_depend_on_the_block(dtype):
    rows, centroids = integers(50, 4, 0), integers(6, 4, 1)
    whole, squares = loop_assign(rows, centroids)
    for block in (1, 7, 49, 50, 51, None):
        labels, distances = nearest(torch.from_numpy(rows).to(dtype), torch.from_numpy(centroids).to(dtype), block)
        assert labels.tolist() == whole
        assert distances.tolist() == squares
        assert (labels.dtype, distances.dtype) == (torch.int64, torch.float32)
    assert nearest(torch.zeros(0, 4), torch.zeros(2, 4))[0].shape == (0,)


def test_bf16_rounds_the_inputs_and_adds_in_float32():
    """1 + 1/256 rounds to 1 in bfloat16, so the point and its centroid meet; the sum of 300 ones stays 300."""
    point = torch.tensor([[1 + 1 / 256]])
    assert nearest(point, torch.tensor([[1.0], [1.5]]), precision="bf16")[1].tolist() == [0]
    ones = torch.ones(1, 300)
    assert nearest(ones, torch.zeros(2, 300), precision="bf16")[1].tolist() == [300]
    rows, centroids = (torch.from_numpy(points(n, 16, n)) for n in (300, 9))
    rounded = nearest(rows.bfloat16(), centroids.bfloat16())
    assert torch.equal(nearest(rows, centroids, precision="bf16")[0], rounded[0])


def test_what_torch_is_set_to_neither_matters_nor_changes():
    rows, centroids = torch.from_numpy(points(300, 64)), torch.from_numpy(points(20, 64, seed=1))
    expected = nearest(rows, centroids)
    torch.set_float32_matmul_precision("medium")
    try:
        found = nearest(rows, centroids)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.usefixtures("_backend")
def test_numbers_that_have_no_distance_are_refused(bad):
    rows = points(9)
    rows[1, 2], rows[3] = bad, bad
    wanted = "got NaN or more than float32 holds" if bad == 1e30 else "got 2 of 9 rows with NaN or infinity; check the"
    with pytest.raises(ValueError, match=wanted):
        assign(rows, points(3))
    with pytest.raises(ValueError, match=wanted):
        nearest(torch.from_numpy(rows), torch.from_numpy(points(3)))
    if bad != 1e30:
        with pytest.raises(ValueError, match="got 2 of 9 rows"):
            assign(points(4), rows)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"expected points and centroids of one dimension, got \(4, 5\) and \(3, 2\)"):
        assign(points(4), points(3, 2))
    with pytest.raises(ValueError, match=r"expected an array of shape \(number, dimensions\), got \(5,\)"):
        nearest(torch.zeros(5), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="expected at least one centroid, got none"):
        assign(points(4), np.zeros((0, 5), np.float32))
    with pytest.raises(ValueError, match="expected a precision of fp32 or bf16, got 'tf32'"):
        nearest(torch.zeros(2, 5), torch.zeros(3, 5), precision="tf32")


@pytest.fixture
def _gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module.faiss_gpu_works.cache_clear()
    yield
    module.faiss_gpu_works.cache_clear()


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    ("program", "said"),
    [("import os; os.abort()", "exit status -6, no message"), ("raise OSError('no CUDA')", "OSError: no CUDA")],
)
def test_a_faiss_that_fails_or_aborts_on_the_gpu_is_not_used(monkeypatch, caplog, program, said):
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "_PROBE", program)
    assert not module.faiss_gpu_works()
    assert said in caplog.text
    assert module._faiss_index(8) is None
    monkeypatch.setattr(module, "_PROBE", "")
    assert not module.faiss_gpu_works()  # asked once a process


@pytest.mark.usefixtures("_gpu")
def test_a_faiss_that_hangs_on_the_gpu_is_not_used(monkeypatch, caplog):
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "_PROBE", "import time; time.sleep(60)")
    assert not module.faiss_gpu_works(seconds=0.5)
    assert "did not answer on the GPU within 0.5 s" in caplog.text
