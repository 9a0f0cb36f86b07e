"""shard: the user's images, checked and normalised, in shards that are uniform samples of the corpus; and the ledger.

Passes over units of bounded size: list the inputs in chunks and hash their contents; find near-duplicates, if asked
to; collect the rows of neighbouring shards; build every shard from the files whose hashes lead to it. Which shard an
image goes to depends on its content and the seed alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.engine import publish
from cluster.engine.run import Run
from cluster.engine.stage import File, Output, Stage, StageError, Unit, map_units
from cluster.shard.hashing import FindNear, HashChunk, Layout, Route, read_digests
from cluster.shard.inputs import LostError, Source, fingerprint
from cluster.shard.places import is_url
from fss.imaging import intake

_MOST_CHUNKS = 4096

SourceOf = Callable[[Run], Source]


@dataclasses.dataclass(frozen=True)
class BuildShard:
    """Builds one shard's tar and its part of the ledger."""

    source: Source
    folder: Path
    routed: tuple[File, ...]
    layout: Layout
    limits: intake.Limits

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the shard's number."""
        bucket, part = divmod(unit.payload, self.layout.width)
        digests = read_digests(self.folder, self.routed[bucket], part)
        tar, rows = intake.build_shard(digests, self._read, seed=self.layout.seed, limits=self.limits)
        statuses = [row.status for row in rows]
        counts = {"inputs": len(rows), **{s: statuses.count(s) for s in ("accepted", "rejected", "duplicate")}}
        files = {f"{unit.name}.tar": tar, f"{unit.name}.ledger.parquet": parquet([vars(r) for r in rows])}
        return Output(files, {f"{unit.name}.tar": counts["accepted"], f"{unit.name}.ledger.parquet": len(rows)}, counts)

    def _read(self, digest: intake.Digest) -> bytes:
        try:
            return self.source.read(digest.path, digest.offset, digest.size)
        except LostError as error:
            raise intake.GoneError(str(error)) from error


_LEDGER_TYPES = {"size": pa.int64(), "width": pa.int32(), "height": pa.int32(), "shard": pa.int32()}


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of the ledger to Parquet bytes, the same for the same rows."""
    names = [field.name for field in dataclasses.fields(intake.Row)] if not rows else list(rows[0])
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
    if not settings.root and not settings.list:
        raise ValueError("expected a folder, a tar or a URL of images: give it as corpus.root=FOLDER")
    root, listing = (None if not p else p if is_url(p) else os.path.abspath(p) for p in (settings.root, settings.list))
    return Source(root, listing, settings.column)


def _inputs(run: Run) -> tuple[str, ...]:
    return ("render",) if run.config.corpus.kind == "scenes" else ()


def _settings(run: Run, of: SourceOf) -> dict[str, Any]:
    settings = run.config.corpus
    keys = ("longer_side", "shard_size", "max_pixels", "max_bytes", "min_side", "near_duplicates", "bands", "range")
    common = {"seed": run.config.seed, **{key: getattr(settings, key) for key in keys}}
    if settings.kind == "scenes":
        return common | {"images": settings.scenes}
    number, listing = fingerprint(of(run))
    return common | {"images": number, "listing": listing}


def _work(run: Run, folder: Path, of: SourceOf) -> tuple[Sequence[File], Mapping[str, int]]:
    settings, given = run.config.corpus, of(run)
    number = int(run.identity("shard")[0]["images"])
    layout = Layout(math.ceil(number / settings.shard_size), run.config.seed, settings.near_duplicates)
    limits = intake.Limits(
        settings.longer_side, settings.max_pixels, settings.min_side, settings.max_bytes, settings.reading()
    )
    size = chunk_size(number)
    chunks, hashed = map_units(
        run,
        folder,
        "hash",
        HashChunk(given, layout, limits),
        _chunks(given, size),
        total=math.ceil(number / size),
        items="inputs",
        parts="chunks",
    )
    looks, rows = (tuple(file for file in chunks if file.path.endswith(suffix)) for suffix in (".looks", ".rows"))
    parts = layout.bands * layout.buckets
    drops: Sequence[File] = ()
    if parts:
        finding = FindNear(folder, looks, layout)
        drops, _ = map_units(run, folder, "near", finding, _units("near", parts), total=parts, parts="parts")
    routing = Route(folder, rows, tuple(drops), layout)
    routed, _ = map_units(
        run,
        folder,
        "route",
        routing,
        _units("bucket", layout.buckets),
        total=layout.buckets,
        items="inputs",
        parts="parts",
    )
    building = BuildShard(given, folder, tuple(routed), layout, limits)
    units = _units("corpus", layout.num_shards)
    files, counts = map_units(run, folder, "shard", building, units, total=layout.num_shards, items="inputs")
    _check_accounts(hashed, counts)
    return files, counts


def chunk_size(number: int) -> int:
    """Inputs hashed by one unit: enough units for many workers, yet never more than some thousands."""
    return max(math.ceil(number / _MOST_CHUNKS), min(2048, max(64, math.ceil(number / 64))))


def _chunks(given: Source, size: int) -> Iterator[Unit]:
    entries = given.entries()
    for number in itertools.count():
        chunk = list(itertools.islice(entries, size))
        if not chunk:
            return
        yield Unit(f"chunk-{number:06d}", chunk)


def _units(name: str, number: int) -> list[Unit]:
    return [Unit(f"{name}-{index:06d}", index) for index in range(number)]


def _check_accounts(hashed: Mapping[str, int], counts: Mapping[str, int]) -> None:
    ended = counts["accepted"] + counts["rejected"] + counts["duplicate"]
    if not hashed["inputs"] == counts["inputs"] == ended:
        raise StageError(f"the ledger does not add up: {hashed['inputs']} inputs, {ended} ended ({dict(counts)})")
    if counts["accepted"] == 0:
        raise StageError(
            f"none of {counts['inputs']} inputs could be used ({counts['rejected']} rejected); "
            "the reasons stand in the *.ledger.parquet files of this stage"
        )


def stage(of: SourceOf = source) -> Stage:
    """The stage, for inputs from `of(run)`."""
    return Stage(
        "shard", _inputs, lambda run: _settings(run, of), lambda run, folder: _work(run, folder, of), version=4
    )


STAGE = stage()
