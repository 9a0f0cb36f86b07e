"""shard: the user's images, checked and normalised, in shards that are uniform samples of the corpus; and the ledger.

Three passes in constant memory: list the inputs in chunks; hash their contents (parallel); build every shard from the
files whose hashes lead to it (parallel). Which shard an image goes to depends on its content and the seed alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import publish
from cluster.inputs import Source, fingerprint
from cluster.run import Run
from cluster.stage import File, Output, Stage, StageError, Unit, map_units
from fss import corpus

_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class HashChunk:
    """Hashes the files of one chunk of the listing and notes each one's shard."""

    source: Source
    num_shards: int
    seed: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a list of (path, bytes)."""
        digests = [self._digest(path, size) for path, size in unit.payload]
        rows = [
            {**dataclasses.asdict(d), "shard": corpus.shard_of(d, self.num_shards, self.seed)}
            for d in sorted(digests, key=lambda d: d.path)
        ]
        return Output({f"hashes/{unit.name}.parquet": parquet(rows)}, {}, {"inputs": len(rows)})

    def _digest(self, path: str, size: int) -> corpus.Digest:
        name = path.encode("utf-8", "backslashreplace").decode()
        if size < 0:
            return corpus.Digest(name, 0, "", "missing: the list names it, but it is not there")
        try:
            data = self.source.read(path)
        except OSError as error:
            return corpus.Digest(name, size, "", f"unreadable: {error}")
        return corpus.Digest(name, len(data), hashlib.sha256(data).hexdigest())


@dataclasses.dataclass(frozen=True)
class BuildShard:
    """Builds one shard's tar and its part of the ledger."""

    source: Source
    hashes: tuple[Path, ...]
    seed: int
    longer_side: int
    max_pixels: int
    min_side: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the shard's number."""
        table = pq.read_table(list(self.hashes), filters=[("shard", "=", unit.payload)])
        digests = [corpus.Digest(**row) for row in table.drop_columns(["shard"]).to_pylist()]
        tar, rows = corpus.build_shard(
            digests,
            self.source.read,
            seed=self.seed,
            longer_side=self.longer_side,
            max_pixels=self.max_pixels,
            min_side=self.min_side,
        )
        statuses = [row.status for row in rows]
        counts = {"inputs": len(rows), **{s: statuses.count(s) for s in ("accepted", "rejected", "duplicate")}}
        files = {f"{unit.name}.tar": tar, f"{unit.name}.ledger.parquet": parquet([dataclasses.asdict(r) for r in rows])}
        return Output(files, {f"{unit.name}.tar": counts["accepted"], f"{unit.name}.ledger.parquet": len(rows)}, counts)


_LEDGER_TYPES = {"size": pa.int64(), "width": pa.int32(), "height": pa.int32(), "shard": pa.int32()}


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of the ledger to Parquet bytes, the same for the same rows."""
    names = [field.name for field in dataclasses.fields(corpus.Row)] if not rows else list(rows[0])
    schema = pa.schema([(name, _LEDGER_TYPES.get(name, pa.string())) for name in names])
    return publish.parquet(pa.Table.from_pylist([dict(row) for row in rows], schema=schema))


def source(run: Run) -> Source:
    """Where this run's images are: the user's, or the rendered ones.

    Raises:
        ValueError: if corpus.root is not set.
    """
    settings = run.config.corpus
    if settings.kind == "scenes":
        folder = run.manifest("render").folder
        return Source(str(folder / "JPEGImages"), str(folder / "ImageSets/train.txt"))
    if not settings.root:
        raise ValueError("expected a folder or URL of images: give it as corpus.root=FOLDER")
    root = settings.root if "://" in settings.root else str(Path(settings.root).resolve())
    return Source(root, str(Path(settings.list).resolve()) if settings.list else None)


def _inputs(run: Run) -> tuple[str, ...]:
    return ("render",) if run.config.corpus.kind == "scenes" else ()


def _settings(run: Run) -> dict[str, Any]:
    settings = run.config.corpus
    keys = ("longer_side", "shard_size", "max_pixels", "min_side")
    common = {"seed": run.config.seed, **{key: getattr(settings, key) for key in keys}}
    if settings.kind == "scenes":
        return common | {"images": settings.scenes}
    number, listing = fingerprint(source(run))
    return common | {"images": number, "listing": listing}


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    settings, given = run.config.corpus, source(run)
    number = int(run.identity("shard")[0]["images"])
    num_shards = math.ceil(number / settings.shard_size)
    hashing = HashChunk(given, num_shards, run.config.seed)
    num_chunks = math.ceil(number / _CHUNK)
    hashes, hashed = map_units(
        run, folder, "hash", hashing, _chunks(given), total=num_chunks, items="inputs", parts="chunks"
    )
    paths = tuple(folder / file.path for file in hashes)
    building = BuildShard(given, paths, run.config.seed, settings.longer_side, settings.max_pixels, settings.min_side)
    units = [Unit(f"corpus-{index:06d}", index) for index in range(num_shards)]
    files, counts = map_units(run, folder, "shard", building, units, total=num_shards, items="inputs")
    _check_accounts(hashed, counts)
    return files, counts


def _chunks(given: Source) -> Iterator[Unit]:
    entries = given.entries()
    for number in itertools.count():
        chunk = list(itertools.islice(entries, _CHUNK))
        if not chunk:
            return
        yield Unit(f"chunk-{number:06d}", chunk)


def _check_accounts(hashed: Mapping[str, int], counts: Mapping[str, int]) -> None:
    ended = counts["accepted"] + counts["rejected"] + counts["duplicate"]
    if not hashed["inputs"] == counts["inputs"] == ended:
        raise StageError(f"the ledger does not add up: {hashed['inputs']} inputs, {ended} ended ({dict(counts)})")
    if counts["accepted"] == 0:
        raise StageError(
            f"none of {counts['inputs']} inputs could be used ({counts['rejected']} rejected); "
            "the reasons stand in the *.ledger.parquet files of this stage"
        )


STAGE = Stage("shard", _inputs, _settings, _work)
