"""A folder that other machines do not see is told before any unit is done there."""

import dataclasses
import socket
import threading

import pytest

from cluster.config import ClusterConfig
from cluster.engine import check, seen
from cluster.engine.pool import Pool


@pytest.fixture
def mark(tmp_path):
    with seen.left(tmp_path / "run") as found:
        yield dataclasses.replace(found, patience=0.0)


@pytest.fixture
def elsewhere(mark, tmp_path):
    """The mark as a machine finds it that has another disk at that place."""
    return dataclasses.replace(mark, path=tmp_path / "other" / mark.path.name)


def test_a_mark_is_seen_as_long_as_the_run_lasts(tmp_path):
    with seen.left(tmp_path / "run") as mark:
        assert mark.problem() is None
        assert [path.name for path in mark.path.parent.iterdir()] == [mark.path.name]
    assert list((tmp_path / "run").iterdir()) == []


def test_a_machine_without_it_is_named(mark, elsewhere):
    named = rf"^root: expected a folder that all machines see, {socket.gethostname()} does not see what"
    with pytest.raises(ValueError, match=named):
        raise ValueError(elsewhere.problem())
    elsewhere.path.parent.mkdir()
    elsewhere.path.write_text("of an older run")
    assert elsewhere.problem()
    elsewhere.path.write_bytes(mark.path.read_bytes())
    assert elsewhere.problem() is None


def test_a_file_system_may_be_late(elsewhere):
    elsewhere.path.parent.mkdir()
    late = threading.Timer(0.3, elsewhere.path.write_text, [elsewhere.word])
    late.start()
    assert dataclasses.replace(elsewhere, patience=30.0).problem() is None
    late.join()


def test_every_machine_of_the_cluster_looks(ray_session, mark, elsewhere):
    assert check.unseen(mark) == []
    assert check.unseen(elsewhere) == [elsewhere.problem()]


def test_a_worker_on_a_machine_that_came_later_does_no_unit(ray_session, elsewhere):
    with (
        Pool(ClusterConfig(workers=1), elsewhere) as pool,
        pytest.raises(ValueError, match=r"^root: expected a folder"),
    ):
        list(pool.map(str, [1]))


def test_a_run_on_a_cluster_leaves_a_mark_and_takes_it_away(ray_session, configure, tmp_path):
    import ray

    from cluster.engine.run import Run
    from cluster.stages import STAGES

    address = ray.get_runtime_context().gcs_address
    with Run(configure(tmp_path, f"cluster.address={address}", "tracking.enabled=false"), STAGES) as run:
        run.check("shard")
        assert len(list(run.folder.glob(".seen-*"))) == 1
    assert not list(run.folder.glob(".seen-*"))
