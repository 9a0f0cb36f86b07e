"""kill -9 of a process at every step of publishing into a bucket: the same bytes as in a folder."""

import os

import pytest

from tests.cluster import s3
from tests.cluster.crashes import STORED_CRASHES
from tests.cluster.engine.test_kills import check_chain
from tests.cluster.killed import tiny
from tests.cluster.storage.test_runs import contents

STORES = [s3.real()]


@pytest.mark.slow
def test_a_process_killed_at_every_point_of_each_kind_of_writer(
    door, machine, photos, copied, configure, start, tmp_path
):
    os.environ["FSS_CACHE"] = str(tmp_path / "first")
    check_chain(STORED_CRASHES, "s3://bucket/killed", *tiny(photos), FSS_CACHE=str(tmp_path / "first"))
    copied.ensure("quality")
    run = start(configure("s3://bucket/killed"))
    assert contents(run, STORED_CRASHES) == contents(copied, STORED_CRASHES)
