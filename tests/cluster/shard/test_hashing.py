"""The shard stage without Ray: rows find their shards whatever the layout, and near-duplicates are brute force's."""

import itertools
import os

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster.config import Config
from cluster.engine.files import DamagedFileError, write_file
from cluster.engine.run import Run
from cluster.engine.work import Work
from cluster.shard import partition
from cluster.shard import stage as shard
from cluster.stages import STAGES
from fss import shards
from fss.imaging import hashes as perceptual
from fss.imaging import images, intake
from tests.cluster.here import Here


class Reversed(Here):
    """A pool in this process that hands results back in reverse."""

    def map(self, function, units):
        yield from reversed([(index, function(unit)) for index, unit in enumerate(units)])


def shard_stage(root, folder, **settings):
    """({path: ledger row}, {shard's file: bytes}) of a corpus."""
    config = Config()
    config.root, config.corpus.root = str(folder / "runs"), str(root)
    for key, value in settings.items():
        setattr(config.corpus, key, value)
    run = Run(config, STAGES)
    run.__dict__["pool"] = Reversed()
    _, counts = STAGES["shard"].work(run.work("shard", folder))
    rows = [row for path in sorted(folder.glob("corpus-*.ledger.parquet")) for row in pq.read_table(path).to_pylist()]
    assert counts["accepted"] + counts["rejected"] + counts["duplicate"] == counts["inputs"] == len(rows)
    return {row["path"]: row for row in rows}, {p.name: p.read_bytes() for p in sorted(folder.glob("corpus-*.tar"))}


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """12 scenes, most of them in several sizes and encodings, an exact copy, a flat pair, rubbish, an odd name."""
    folder = tmp_path_factory.mktemp("near")
    for seed in range(12):
        for copy, (side, quality) in enumerate([(90, 95), (60, 95), (90, 30), (80, 60)][: 1 + seed % 4]):
            picture = scene(seed).resize((side, side * 7 // 9))
            (folder / f"{seed:02}-{copy}.jpg").write_bytes(images.encode_jpeg(picture, quality))
    (folder / "copy.jpg").write_bytes((folder / "03-1.jpg").read_bytes())
    for value in (1, 2):
        flat = np.full((64, 64, 3), 90, np.uint8)
        flat[0, 0] += value
        (folder / f"flat-{value}.png").write_bytes(images.encode_png(flat))
    (folder / "broken.jpg").write_bytes((folder / "00-0.jpg").read_bytes()[:700])
    (folder / os.fsdecode(b"latin\xe9.jpg")).write_bytes(images.encode_jpeg(scene(99)))
    return folder


@pytest.mark.parametrize("limit", [2, 6])
def test_near_duplicates_are_those_of_brute_force_for_any_layout(near, tmp_path, limit):
    hashes = {}
    for path in near.glob("[0-9]*.jpg"):
        data = path.read_bytes()
        found, _ = intake.accept(data, intake.Limits(min_side=32), perceptual.SIDE)
        hashes[shards.sha256(data)] = (perceptual.phash(found.image), path.name)
    truth = {}
    for (one, (a, _)), (other, (b, name)) in itertools.permutations(hashes.items(), 2):
        if other < one and (a ^ b).bit_count() <= limit:
            text = f"{name} (near, {(a ^ b).bit_count()} of 64 bits differ)"
            truth[one] = min(truth.get(one, ("~", "")), (other, text))
    assert 5 < len(truth) < 20
    for size in (3, 1000):
        (tmp_path / str(size)).mkdir()
        rows, _ = shard_stage(near, tmp_path / str(size), near_duplicates=limit, shard_size=size)
        said = {row["sha256"]: row["reason"] for row in rows.values() if "(near" in row["reason"]}
        assert said == {sha256: text for sha256, (_, text) in truth.items()}
        assert all(rows[f"flat-{value}.png"]["status"] == "accepted" for value in (1, 2))
        assert rows["broken.jpg"]["status"] == "rejected"
        assert rows["latin\\xe9.jpg"]["status"] == "accepted"


def test_layout_and_order_do_not_matter(near, tmp_path, monkeypatch):
    results = []
    for size in (1, 7, 64):
        monkeypatch.setattr(shard, "chunk_size", lambda _, size=size: size)
        (tmp_path / str(size)).mkdir()
        results.append(shard_stage(near, tmp_path / str(size), near_duplicates=4, shard_size=5))
    assert results[0] == results[1] == results[2]
    assert len(results[0][1]) == 7


def test_more_shards_than_images(near, tmp_path):
    rows, tars = shard_stage(near, tmp_path, shard_size=1)
    assert len(tars) == len(rows) == 35
    counts = [len(list(shards.unpack(data))) for data in tars.values()]
    assert 0 in counts
    assert sum(counts) == sum(row["status"] == "accepted" for row in rows.values())


def test_the_log_counts_why_inputs_were_rejected(near, tmp_path, caplog):
    (tmp_path / "some").mkdir()
    for name in ("00-0.jpg", "broken.jpg"):
        (tmp_path / "some" / name).write_bytes((near / name).read_bytes())
    for name, content in (("notes.txt", b"no image"), ("a.heic", b"....ftypheic"), ("b.jxl", b"\xff\x0a")):
        (tmp_path / "some" / name).write_bytes(content)
    with caplog.at_level("INFO"):
        shard_stage(tmp_path / "some", tmp_path / "out")
    (told,) = (line for line in caplog.messages if line.startswith("shard: "))
    where = f"{tmp_path}/out/*.ledger.parquet"
    assert told == f"shard: 4 inputs were rejected: 2 unsupported, 1 not_an_image, 1 truncated; each stands in {where}"


def test_without_near_duplicates_only_copies_are_dropped(near, tmp_path):
    rows, _ = shard_stage(near, tmp_path)
    assert {path: row["reason"] for path, row in rows.items() if row["status"] == "duplicate"} == {
        "copy.jpg": "03-1.jpg"
    }


def test_files_that_go_or_change_between_the_passes(near, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.jpg").write_bytes(images.encode_jpeg(scene(seed)))
    routed = shard.Route.__call__

    def meddle(self, unit):
        (folder / "0.jpg").unlink(missing_ok=True)
        (folder / "1.jpg").write_bytes(images.encode_jpeg(scene(9)))
        with (folder / "3.jpg").open("ab") as growing:
            growing.write(b"more")
        return routed(self, unit)

    monkeypatch.setattr(shard.Route, "__call__", meddle)
    (tmp_path / "out").mkdir()
    rows, _ = shard_stage(folder, tmp_path / "out")
    assert {path: row["status"] for path, row in rows.items()} == {
        "0.jpg": "rejected", "1.jpg": "rejected", "2.jpg": "accepted", "3.jpg": "rejected"}  # fmt: skip
    assert rows["0.jpg"]["reason"].startswith("unreadable: ")
    assert rows["1.jpg"]["reason"] == rows["3.jpg"]["reason"] == "changed while it was read"


# Damage between the passes


def table(numbers):
    return pa.table({"number": numbers, "name": [f"row {number}" for number in numbers]})


def packed(folder, numbers, parts):
    data = partition.pack(table(numbers), np.array([n % parts for n in numbers], np.int64), parts)
    return write_file(folder, "x.rows", data)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(numbers=st.lists(st.integers(0, 99), max_size=40), parts=st.integers(1, 9))
def test_parts_hold_their_rows_in_order(tmp_path, numbers, parts):
    file = packed(tmp_path, numbers, parts)
    for part in range(parts):
        expected = table([number for number in numbers if number % parts == part]).to_pylist()
        assert partition.unpack(tmp_path, file, part).to_pylist() == expected


def test_every_flipped_byte_is_noticed_by_who_reads_that_part(tmp_path):
    file = packed(tmp_path, [4, 1, 2, 8, 0, 7], 3)
    data = (tmp_path / file.path).read_bytes()
    for at in [*range(0, len(data) - 44, 37), *range(len(data) - 44, len(data))]:
        (tmp_path / file.path).write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        noticed = 0
        for part in range(3):
            try:
                assert partition.unpack(tmp_path, file, part)["number"].to_pylist() == [
                    n for n in [4, 1, 2, 8, 0, 7] if n % 3 == part
                ]
            except DamagedFileError:
                noticed += 1
        assert noticed == (1 if at < len(data) - 44 else 3), at


@pytest.mark.parametrize("how", ["flipped", "cut", "lost"])
@pytest.mark.parametrize(
    ("after", "name"),
    [
        ("hash", "chunk-000000.rows"),
        ("hash", "chunk-000000.looks"),
        ("near", "*.drops"),
        ("route", "bucket-000000.rows"),
    ],
)
def test_damage_between_the_passes_is_made_good(near, tmp_path, monkeypatch, caplog, how, after, name):
    real, hurt = Work.map, []

    def damaging(given, step, *rest, **more):
        done = real(given, step, *rest, **more)
        if step == after and not hurt:
            path = next((given.folder / "hashes").glob(name))
            data = path.read_bytes()
            hurt.append(path)
            path.unlink()
            if how != "lost":
                path.write_bytes(data[: len(data) // 2] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
        return done

    results = []
    for work in (real, damaging):
        monkeypatch.setattr(Work, "map", work)
        config = Config()
        config.root, config.corpus.root = str(tmp_path / work.__name__), str(near)
        config.corpus.shard_size, config.corpus.near_duplicates = 5, 4
        run = Run(config, STAGES)
        run.__dict__["pool"] = Reversed()
        results.append([(f.path, f.sha256, f.count) for f in run.ensure("shard").files])
    assert results[0] == results[1]
    assert f"{hurt[0]} is damaged: expected" in caplog.text


def test_a_store_that_is_out_for_a_while_costs_a_second_run_and_no_image(near, tmp_path, monkeypatch):
    def load(system):
        system.pipe({f"/out/{path.name}": path.read_bytes() for path in near.glob("0*.jpg")})

    system = fsspec.filesystem("memory")
    load(system)
    real, reads = type(system).cat_file, []

    def out(self, path, *rest, **more):
        reads.append(path)
        if 40 <= len(reads) < 45:
            raise ConnectionError("the store is out")
        return real(self, path, *rest, **more)

    monkeypatch.setattr(type(system), "cat_file", out)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConnectionError, match="the store is out"):
        shard_stage("memory://out", tmp_path / "out", shard_size=5)
    reads[:] = [""] * 50
    again = shard_stage("memory://out", tmp_path / "out", shard_size=5)
    (tmp_path / "whole").mkdir()
    assert again == shard_stage("memory://out", tmp_path / "whole", shard_size=5)
    assert not [row for row in again[0].values() if row["status"] == "rejected"]
    system.rm("/out", recursive=True)
