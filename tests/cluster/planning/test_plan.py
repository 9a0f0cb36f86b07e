"""The plan's arithmetic, by hand; and the plan of a small corpus beside really making it."""

import tarfile
from dataclasses import replace

import pytest

from cluster.label.kept import DIRECTIONS, FIELDS
from cluster.planning import calibrate, forecast, plan
from cluster.planning.calibrate import KmeansCost, Measured
from cluster.planning.network import NetworkCost
from cluster.planning.plan import Amount, Cost, Machines
from cluster.planning.probes import Passes, Steps
from cluster.planning.timing import Made, Note
from cluster.stages import STAGES
from jobs.plan import load_plan

LABEL = Cost(
    "label", "label", 0.1, read=1000, written=200, written_unit=5000, base=1e9, held=2400, parts={"backbone": 0.07}
)


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


def test_units_cost_workers_and_the_driver():
    """10 units of 0.5 s beside 0.1 s an item on 2 workers; the driver's 2 s for each are longer."""
    cost = Cost("shard", "route", 0.1, seconds_unit=0.5, driver=0.2)
    assert plan.row(cost, Amount(100, 10), Machines(2)).seconds == pytest.approx(5 * (10 * 0.1 + 0.5))
    assert plan.row(cost, Amount(100, 10), Machines(2)).cpu_hours == pytest.approx((100 * 0.1 + 10 * 0.5) / 3600)
    assert plan.row(cost, Amount(100, 10), Machines(20)).roof == "driver"
    assert plan.row(cost, Amount(100, 10), Machines(20)).seconds == pytest.approx(2)


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
        (("corpus_size=9", "plan.images=4"), r"plan.images: expected at least 16, got 4"),
        (("corpus_size=9", "plan.network_gbit=-1"), r"plan.network_gbit: expected a positive number, got -1"),
    ],
)
def test_refused_plans(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_plan(["experiment=tiny", *arguments])


def test_sizes_are_numbers_as_people_write_them():
    assert load_plan(["corpus_size=1e9"]).plan.corpus_size == 1e9
    assert load_plan(["corpus_size=250000"]).plan.corpus_size == 250_000


@pytest.fixture
def trial(configure, pools, monkeypatch, tmp_path):
    """A function (*overrides) -> the configuration and its calibration, by the tests' two workers."""
    monkeypatch.setattr(calibrate.Run, "pool", pools[2])

    def make(*overrides):
        config = configure(tmp_path / "runs", "plan.images=36", "plan.corpus_size=36", *overrides)
        return config, calibrate.calibrate(config, STAGES)

    return make


def test_bytes_of_a_real_run_are_predicted(trial, start, tmp_path):
    """Within a tenth, of the same 36 photos in three shards; times are for a benchmark."""
    config, found = trial()
    real_run = start(config)
    real_run.ensure("pair")
    assert list((tmp_path / "runs").glob(".plan-*")) == []
    assert list(found.costs) == ["hash", "route", "build", "sample", "label", "sum", "match", "crop", "pair"]
    assert all(cost.seconds >= 0 and cost.held >= 0 for cost in found.costs.values())
    assert set(found.costs["label"].parts) == {"decode", "backbone", "segments"}
    rows = {one.step: one for one in forecast.predict(config, found, Machines(2))}
    labels = ["sample", "kmeans", "label", "sum", "match", "crop"]
    assert list(rows) == ["hash", "route", "build", *labels, "pair", "train"]
    for step, stage, units in (
        ("build", "shard", "corpus-*"),
        ("sample", "sample", "*"),
        ("label", "label", "*"),
        ("pair", "pair", "*"),
    ):
        manifest = real_run.manifest(stage)
        records = (manifest.folder / ".units").glob(units)
        real = sum(file.bytes for file in manifest.files) + sum(record.stat().st_size for record in records)
        assert rows[step].written == pytest.approx(real, rel=0.1), step
    assert rows["label"].roof in ("decode", "backbone", "segments")
    assert (rows["train"].items, rows["train"].roof in ("head", "backbone")) == (config.train.steps, True)
    config.plan.corpus_size = 72e6
    more = {one.step: one for one in forecast.predict(config, found, Machines(2))}
    assert more["label"].cpu_hours == pytest.approx(rows["label"].cpu_hours * 2e6, rel=0.01)
    assert more["train"].seconds >= rows["train"].seconds


def test_tars_lists_and_streamed_tasks_are_planned_too(trial, photos, tmp_path):
    """Half of the photos in a tar, half as files, both in a list; tasks are paired while training, hashes compared."""
    names = sorted(path.name for path in (photos / "JPEGImages").iterdir())
    with tarfile.open(tmp_path / "half.tar", "w") as tar:
        for name in names[:18]:
            tar.add(photos / "JPEGImages" / name, f"inner/{name}")
    listed = [str(tmp_path / "half.tar"), *(str(photos / "JPEGImages" / name) for name in names[18:])]
    (tmp_path / "images.txt").write_text("\n".join(listed))
    config, found = trial(
        "corpus.root=null", f"corpus.list={tmp_path}/images.txt", "corpus.near_duplicates=3", "train.tasks=stream"
    )
    assert found.accepted > 0.8
    rows = [one.step for one in forecast.predict(config, found, Machines(2))]
    assert rows == ["hash", "find", "route", "build", "sample", "kmeans", "label", "sum", "match", "crop", "train"]


def test_refined_masks_are_planned(trial, start):
    """Label writes more for them; a worker holds the embeddings of a group, however large the corpus is."""
    gates = ("refine.max_area=0.9", "refine.max_border=0.9", "refine.clusters=2", "pair.max_area=0.9")
    config, found = trial("source=saliency", "refine=consensus", "train.tasks=stream", *gates)
    rows = {one.step: one for one in forecast.predict(config, found, Machines(2))}
    assert list(rows) == ["hash", "route", "build", "label", "refine", "mean", "sum", "match", "crop", "train"]
    run = start(config)
    run.ensure("refine")
    for step, units in (("label", "part-*"), ("refine", "*")):
        folder = run.manifest(step).folder
        names = [file.path for file in run.manifest(step).files if file.path != DIRECTIONS]
        paths = [*(folder / name for name in names), *(folder / ".units").glob(units)]
        assert rows[step].written == pytest.approx(sum(path.stat().st_size for path in paths), rel=0.15), step
    embeddings = sum(file.bytes for file in run.manifest("label").named(FIELDS)) / 36
    assert found.costs["refine"].held > embeddings
    config.plan.corpus_size, before = 72e6, rows["refine"]
    after = next(one for one in forecast.predict(config, found, Machines(2)) if one.step == "refine")
    assert after.memory == pytest.approx(before.memory, abs=36 * found.costs["refine"].held)


def test_what_workers_load_is_what_their_first_units_take_beyond_their_cost():
    """Of two steps of two workers: 10 images at 0.1 s and 0.5 s a unit are 1.5 s; the second unit of a worker counts
    for nothing."""

    class First:
        def steps(self, stage):
            return ["sum", "crop"]

        def step(self, stage, name):
            workers = [("host", 1), ("host", 2), ("host", 1)]
            seconds = {"sum": [4.5, 2.5, 9.0], "crop": [1.5, 2.0, 9.0]}[name]
            notes = [Note(name, "unit", worker, taken, 0) for worker, taken in zip(workers, seconds, strict=True)]
            return notes, [Made(10, 0, 1)] * 3

    costs = {name: Cost("quality", name, 0.1, seconds_unit=0.5) for name in ("sum", "crop")}
    assert calibrate._start("quality", First(), costs) == pytest.approx(3.0)
    dear = {name: replace(cost, seconds=9.0) for name, cost in costs.items()}
    assert calibrate._start("quality", First(), dear) == 0


NETWORK = NetworkCost("timm/vit", 1024, 303_000_000, 4.14e12, together=1, working=7e8, gpu=0)


def measured(**changes):
    """What a calibration might find, in round numbers."""
    passes = Passes(count=100, hash=1.0, hash_bytes=1000, find=0.25, route=0.5, bucket=2.0, bucket_bytes=900)
    row = Passes(count=100, hash=0.5, hash_bytes=500, find=0, route=0.1, bucket=0.1, bucket_bytes=400)
    steps = ("hash", "shard"), ("find", "shard"), ("route", "shard"), ("build", "shard"), ("sample", "sample"), (
        "label", "label")  # fmt: skip
    costs = {step: Cost(stage, step, 0.01, written=10) for step, stage in steps}
    facts = {
        "costs": costs, "passes": passes, "rows": row, "compare": 1e-9,
        "sums": KmeansCost(1e-6, 4e-6, 0.01, kept=32, memory=1e8, iteration=0.2),
        "network": NETWORK,
        "training": {"train": Steps(0.5, 0.1, 4, 1e6)}, "driver": 0.001, "fixed": {"sample": 7.0}, "accepted": 0.5,
        "points": 10.0, "dimensions": 8, "workers": 2, "disk": 1e8, "seconds": 1.0,
    }  # fmt: skip
    return Measured(**{**facts, **changes})


def steps_of(*overrides, **changes):
    config = load_plan(["experiment=tiny", "corpus.kind=folder", "corpus.root=x", *overrides])
    return {one.step: one for one in forecast.predict(config, measured(**changes), Machines(2))}


def test_passes_over_rows_by_hand():
    """10,000 inputs: 64 chunks of 157, 500 shards in 23 buckets of 22; 0.5 s of a chunk come with its row groups."""
    rows = steps_of("corpus_size=10000", "corpus.shard_size=20")
    assert rows["hash"].seconds == pytest.approx(32 * (157 * 0.01 + 0.5))
    assert rows["hash"].written == 10_000 * 5 + 64 * 500
    assert rows["route"].seconds == pytest.approx(12 * (10_000 / 23 * 0.002 + 64 * 0.5 + 2))
    assert rows["route"].written == 10_000 * 4 + 23 * 500
    assert rows["sample"].seconds == pytest.approx(250 * 10 * 0.01 + 7)  # of 500 shards of 10 accepted images


def test_near_duplicates_are_compared_with_those_that_share_a_band():
    """10,000 hashes in 4 bands of 16 bits: each meets 10,000 / 65,536 / 2 others in a band."""
    few, many = (
        steps_of(f"corpus_size={n}", "corpus.shard_size=20", "corpus.near_duplicates=3", compare=1.0)["find"]
        for n in (10_000, 20_000)
    )
    compared = 4 * 10_000 * 10_000 / 65_536 / 2
    assert few.cpu_hours * 3600 == pytest.approx(compared + 40_000 * 0.002 + 4 * 23 * 64 * 0.25)
    assert many.cpu_hours * 3600 > 3.5 * compared


def test_points_that_do_not_fit_are_read_in_every_iteration():
    """5,000 images of 10 points of 8 float32 in chunks of one file (100 points): 5 iterations, the driver adds, and
    needs 0.2 s beside."""
    plenty = steps_of("corpus_size=10000")["kmeans"]
    assert plenty.read == 50_000 * 32 * 2
    assert plenty.seconds == pytest.approx(500 * 5 * 0.01 + 5 * 0.2)
    assert plenty.roof == "driver"
    none = steps_of("corpus_size=10000", "cluster.memory_gib=1e-9")["kmeans"]
    assert none.read == pytest.approx(50_000 * 32 * 6, rel=1e-3)
    assert none.memory < plenty.memory


def test_features_that_fit_are_computed_once():
    """800 steps of 4 images of 2 views of 500,000 images: nearly all new; of 5 images: 10 and no more."""
    new = steps_of("corpus_size=1e6", "train.steps=800")["train"]
    assert new.seconds == pytest.approx(800 * 0.5 + 3200 * 0.1, rel=0.01)
    assert steps_of("corpus_size=10", "train.steps=800")["train"].seconds == pytest.approx(800 * 0.5 + 10 * 0.1)
    fresh = steps_of("corpus_size=10", "train.steps=800", "train.features=fresh")["train"]
    assert fresh.seconds == pytest.approx(800 * 0.5 + 3200 * 0.1)
    small = steps_of("corpus_size=10", "train.steps=800", "train.cache_gib=0")["train"]
    assert small.seconds == pytest.approx(800 * 0.5 + 3200 * 0.1)


def test_notes_on_what_no_machine_has():
    config = load_plan(["experiment=tiny", "corpus.kind=folder", "corpus.root=x", "corpus_size=1e10"])
    rows = forecast.predict(config, measured(), Machines(2))
    told = " ".join(forecast.notes(config, measured(), rows, Machines(2)))
    assert "the driver keeps 1 TB of names and hashes of files; raise corpus.shard_size" in told
    assert "waits for the driver; source.shards=N" in told
    slow = forecast.predict(config, measured(), Machines(2, disk=1e3))
    assert "plan.disk_mb_s=N" in " ".join(forecast.notes(config, measured(), slow, Machines(2)))
    config.plan.corpus_size = 1000
    rows = forecast.predict(config, measured(), Machines(2))
    first, *others = forecast.notes(config, measured(), rows, Machines(2))
    assert [note.split()[0] for note in others] == ["training", "evaluation"]
    assert first == (
        "timm/vit has 303 million parameters; an image of 1024 x 1024 pixels takes 4,140 billion operations, and "
        "beside its weights 700 MB of a worker's memory while it computes one"
    )
    config.backbone.levels_by = "consistency"
    assert any(note.startswith("backbone.levels_by=") for note in forecast.notes(config, measured(), rows, Machines(2)))
    on_gpu = measured(network=replace(NETWORK, gpu=9e9, together=16))
    assert next(forecast.notes(config, on_gpu, rows, Machines(2))).endswith(
        "and 9 GB of a GPU's memory while it computes 16 together"
    )
