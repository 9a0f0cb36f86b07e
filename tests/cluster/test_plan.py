"""The plan's arithmetic, by hand; and the plan of a small corpus beside really making it."""

import pytest

from cluster import calibrate, plan
from cluster.plan import Amount, Cost, Machines
from cluster.stages import STAGES
from jobs.plan import load_plan

LABEL = Cost("label", "label", 0.1, read=1000, written=200, written_unit=5000, base=1e9, parts={"backbone": 0.07})


def test_a_step_by_hand():
    """1,000 images in 10 shards on 4 workers of 2 CPUs and half a GPU: three rounds of 100 images of 0.1 s."""
    one = plan.row(LABEL, Amount(1000, 100), Machines(4, cpus=2, gpus=0.5))
    assert one.seconds == pytest.approx(3 * 100 * 0.1)
    assert one.cpu_hours == pytest.approx(1000 * 0.1 * 2 / 3600)
    assert one.gpu_hours == pytest.approx(1000 * 0.1 * 0.5 / 3600)
    assert one.read == 1_000_000
    assert one.written == 1000 * 200 + 10 * 5000
    assert one.memory == 1e9 + 2 * 100 * 1200
    assert one.roof == "backbone"


def test_fewer_items_than_a_unit_take_their_own_time():
    assert plan.row(LABEL, Amount(30, 100), Machines(4)).seconds == pytest.approx(3)
    assert Amount(30, 100).units == 1


def test_passes_and_resident_memory():
    """k-means: 4 parts of 10 points on 2 workers, 3 iterations; the points stay in memory."""
    cost = Cost("kmeans", "kmeans", 0.5, base=100)
    one = plan.row(cost, Amount(40, 10, passes=3, resident=800), Machines(2))
    assert one.seconds == pytest.approx(2 * 3 * 10 * 0.5)
    assert one.cpu_hours == pytest.approx(40 * 3 * 0.5 / 3600)
    assert one.memory == 100 + 400
    assert one.roof == "kmeans"


def test_network_and_disk_are_limits_of_all_workers_together():
    slow_line = Machines(100, network=1000, disk=1e9)
    far = plan.row(LABEL, Amount(1000, 10), slow_line, remote=True)
    assert (far.seconds, far.roof) == (1000, "network")
    assert plan.row(LABEL, Amount(1000, 10), slow_line).roof == "backbone"
    slow_disk = plan.row(LABEL, Amount(1000, 10), Machines(100, disk=1000))
    assert (slow_disk.seconds, slow_disk.roof) == ((1000 * 1200 + 100 * 5000) / 1000, "disk")


def test_the_bottleneck_is_what_most_time_waits_for():
    rows = [
        plan.row(LABEL, Amount(1000, 100), Machines(1)),
        plan.row(Cost("shard", "build", 0.06), Amount(1000, 100), Machines(1)),
        plan.row(Cost("pair", "pair", 0.06), Amount(1000, 100), Machines(1)),
    ]
    assert plan.bottleneck(rows) == "backbone (45 % of the time); the longest stage is label"
    assert list(plan.notes(rows)) == []
    heavy = plan.row(Cost("kmeans", "kmeans", 1), Amount(10, 10, resident=1e11), Machines(2))
    assert "50 GB in each worker; source.shards=N" in next(plan.notes([heavy]))
    lines = list(plan.table(rows))
    assert len(lines) == 5
    assert lines[1].split()[0] == "label"
    assert lines[-1].split()[:4] == ["sum", "3.67", "min", "0.0611"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"corpus_size=1e9, got None"),
        (("corpus_size=0",), r"corpus_size=1e9, got 0"),
        (("corpus_size=many",), r"plan.corpus_size"),
        (("corpus_size=9", "plan.images=4"), r"plan.images: expected at least 16 .* got 4"),
        (("corpus_size=9", "plan.network_gbit=-1"), r"plan.network_gbit: expected a number above 0, got -1"),
    ],
)
def test_refused_plans(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_plan(["experiment=tiny", *arguments])


def test_sizes_are_numbers_as_people_write_them():
    assert load_plan(["corpus_size=1e9"]).plan.corpus_size == 1e9
    assert load_plan(["corpus_size=250000"]).plan.corpus_size == 250_000


@pytest.fixture
def measured(configure, pools, monkeypatch, tmp_path):
    """The calibration on 36 photos, by the tests' two workers."""
    monkeypatch.setattr(calibrate.Run, "pool", pools[2])
    config = configure(tmp_path, "plan.images=32")
    return config, calibrate.calibrate(config, STAGES, 32)


def test_bytes_of_a_real_run_are_predicted(measured, start, tmp_path):
    """Within a tenth, of 36 photos in three shards; times are for a benchmark, on a machine that does nothing else."""
    config, found = measured
    real_run = start(config)
    real_run.ensure("pair")
    assert list(tmp_path.glob(".plan-*")) == []
    assert [cost.step for cost in found.costs] == ["hash", "build", "sample", "kmeans", "label", "pair"]
    assert all(cost.seconds > 0 for cost in found.costs)
    assert set(found.costs[4].parts) == {"decode", "backbone", "segments"}
    assert sum(found.costs[4].parts.values()) >= found.costs[4].seconds > 0
    rows = {one.step: one for one in calibrate.predict(config, found, 36, Machines(2))}
    for step, stage in (("build", "shard"), ("sample", "sample"), ("label", "label"), ("pair", "pair")):
        manifest = real_run.manifest(stage)
        records = (manifest.folder / ".units").glob(
            "chunk-*" if step == "hash" else "[!c]*" if step != "build" else "corpus-*"
        )
        real = sum(file.bytes for file in manifest.files) + sum(record.stat().st_size for record in records)
        assert rows[step].written == pytest.approx(real, rel=0.1), step
    assert rows["label"].roof in ("decode", "backbone", "segments")
    twice = {one.step: one for one in calibrate.predict(config, found, 72e6, Machines(2))}
    assert twice["label"].cpu_hours == pytest.approx(rows["label"].cpu_hours * 2e6)
