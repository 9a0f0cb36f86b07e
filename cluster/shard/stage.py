"""shard: the user's images, checked and normalised, in shards that are uniform samples of the corpus; and the ledger.

Passes over units of bounded size: list the inputs in chunks and hash their contents; find near-duplicates, if asked
to; collect the rows of neighbouring shards; build every shard from the files whose hashes lead to it. Which shard an
image goes to depends on its content and the seed alone.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.settings import complaints, picked
from cluster.engine.stage import File, Manifest, Output, Stage, StageError, Unit, Work, read_file
from cluster.shard.hashing import FindNear, HashChunk, Route, ShardLayout, read_digests
from cluster.shard.inputs import CorpusInput, LostError, apart, fingerprint, look
from cluster.shard.places import is_url
from cluster.storage.bucket import address
from cluster.tracking.redact import redact
from fss.imaging import intake

_MOST_CHUNKS = 4096
#: Ledgers in which the reasons are counted that the log names.
_LEDGERS = 64
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BuildShard:
    """Builds one shard's tar and its part of the ledger."""

    source: CorpusInput
    folder: Path
    routed: tuple[File, ...]
    layout: ShardLayout
    limits: intake.Limits

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the shard's number."""
        bucket, part = divmod(unit.payload, self.layout.width)
        places: dict[tuple[str, int], str] = {}  # an address is shown without the login that reading it takes
        digests = []
        for digest in read_digests(self.folder, self.routed[bucket], part):
            shown = dataclasses.replace(digest, path=redact(digest.path))
            places[shown.path, shown.offset] = digest.path
            digests.append(shown)

        def read(digest: intake.Digest) -> bytes:
            return self._read(places[digest.path, digest.offset], digest)

        tar, rows = intake.build_shard(digests, read, seed=self.layout.seed, limits=self.limits)
        statuses = [row.status for row in rows]
        counts = {"inputs": len(rows), **{s: statuses.count(s) for s in ("accepted", "rejected", "duplicate")}}
        files = {f"{unit.name}.tar": tar, f"{unit.name}.ledger.parquet": parquet([vars(r) for r in rows])}
        return Output(files, {f"{unit.name}.tar": counts["accepted"], f"{unit.name}.ledger.parquet": len(rows)}, counts)

    def _read(self, place: str, digest: intake.Digest) -> bytes:
        try:
            return self.source.read(place, digest.offset, digest.size)
        except LostError as error:
            raise intake.GoneError(str(error)) from error


_LEDGER_TYPES = {"size": pa.int64(), "width": pa.int32(), "height": pa.int32(), "shard": pa.int32()}


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of the ledger to Parquet bytes, the same for the same rows."""
    names = [field.name for field in dataclasses.fields(intake.LedgerRow)] if not rows else list(rows[0])
    schema = pa.schema([(name, _LEDGER_TYPES.get(name, pa.string())) for name in names])
    return publish.parquet(pa.Table.from_pylist([dict(row) for row in rows], schema=schema))


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """What shapes the shards and the ledger."""

    seed: int
    images: int
    """Inputs that are listed."""
    listing: str | None
    """A hash over their names, sizes and offsets; None where the render stage makes them."""
    longer_side: int
    shard_size: int
    max_pixels: int
    max_bytes: int
    min_side: int
    near_duplicates: int | None
    bands: tuple[int, ...] | None
    range: tuple[float, float] | None

    @property
    def shards(self) -> int:
        """Shards that the inputs go to."""
        return math.ceil(self.images / self.shard_size)


@dataclasses.dataclass(frozen=True)
class ShardMeans:
    """Where the user's images are; None where the render stage makes them."""

    source: CorpusInput | None


def source(config: Config) -> CorpusInput | None:
    """Where the user's images are; None where the render stage makes them.

    Raises:
        ValueError: if corpus.root is not set, or has the run's own folder in it.
    """
    chosen = config.corpus
    if chosen.kind == "scenes":
        return None
    if not chosen.root and not chosen.list:
        raise ValueError(
            "corpus.root: expected a folder, a tar or a URL of images, got none; give it as corpus.root=FOLDER"
        )
    root, listing = (
        None if not p else p if is_url(p) else os.path.abspath(os.path.expanduser(p))
        for p in (chosen.root, chosen.list)
    )
    drivers = tuple((chosen.drivers or "").split(","))
    given = CorpusInput(root, listing, chosen.column, chosen.max_bytes, drivers)
    apart(given, config.root)
    return given


def _settings(config: Config, given: CorpusInput | None) -> ShardSettings:
    number, listing = (config.corpus.scenes, None) if given is None else fingerprint(given)
    return picked(ShardSettings, config.corpus, seed=config.seed, images=number, listing=listing)


def _work(work: Work[ShardSettings, ShardMeans]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, folder = work.settings, work.folder
    given = work.means.source or _rendered(work.inputs["render"])
    layout = ShardLayout(chosen.shards, chosen.seed, chosen.near_duplicates)
    limits = picked(intake.Limits, chosen)
    size = chunk_size(chosen.images)
    chunks, hashed = work.map(
        "hash",
        HashChunk(given, layout, limits),
        _chunks(given, size),
        total=math.ceil(chosen.images / size),
        items="inputs",
        parts="chunks",
    )
    looks, rows = (tuple(file for file in chunks if file.path.endswith(suffix)) for suffix in (".looks", ".rows"))
    parts = layout.bands * layout.buckets
    drops: Sequence[File] = ()
    if parts:
        drops, _ = work.map("near", FindNear(folder, looks, layout), _units("near", parts), parts="parts")
    routing = Route(folder, rows, tuple(drops), layout)
    routed, _ = work.map("route", routing, _units("bucket", layout.buckets), items="inputs", parts="parts")
    building = BuildShard(given, folder, tuple(routed), layout, limits)
    files, counts = work.map("shard", building, _units("corpus", layout.num_shards), items="inputs")
    _check_accounts(hashed, counts)
    if counts["accepted"] == 0:
        raise StageError(
            f"none of {counts['inputs']} inputs could be used ({_reasons(folder, files)}); all of them stand in the "
            "*.ledger.parquet files of this stage"
        )
    if counts["rejected"]:
        found = sorted(_kinds(folder, files).items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{number} {kind}" for kind, number in found)
        first = f" in the first {_LEDGERS} shards" if layout.num_shards > _LEDGERS else ""
        told = f"{counts['rejected']} inputs were rejected: {kinds}{first}"
        logger.info("shard: %s; each stands in %s/*.ledger.parquet", told, address(folder))
    return files, counts


def _kinds(folder: Path, files: Sequence[File]) -> Counter[str]:
    """How many inputs were rejected for each kind of reason, in the first ledgers."""
    ledgers = itertools.islice((file for file in files if file.path.endswith(".ledger.parquet")), _LEDGERS)
    found: Counter[str] = Counter()
    for data in (read_file(folder, file) for file in ledgers):
        reasons = pq.read_table(io.BytesIO(data), columns=["reason"], filters=[("status", "=", "rejected")])["reason"]
        found.update(reason.partition(":")[0] for reason in reasons.to_pylist())
    return found


def _reasons(folder: Path, files: Sequence[File]) -> str:
    """Some rejected inputs, with why."""
    ledgers = (read_file(folder, file) for file in files if file.path.endswith(".ledger.parquet") and file.count)
    rows = (row for data in ledgers for row in pq.read_table(io.BytesIO(data)).to_pylist())
    return "; ".join(f"{row['path']}: {row['reason']}" for row in itertools.islice(rows, 3))


def _rendered(render: Manifest) -> CorpusInput:
    return CorpusInput(str(render.folder / "JPEGImages"), str(render.folder / "ImageSets/train.txt"))


def chunk_size(number: int) -> int:
    """Inputs hashed by one unit: enough units for many workers, yet never more than some thousands."""
    return max(math.ceil(number / _MOST_CHUNKS), min(2048, max(64, math.ceil(number / 64))))


def _chunks(given: CorpusInput, size: int) -> Iterator[Unit]:
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


def stage(chosen: CorpusInput | None = None) -> Stage[ShardSettings, ShardMeans]:
    """The stage for the images of the configuration, or for `chosen` ones in their place."""

    def given(config: Config) -> CorpusInput | None:
        return chosen or source(config)

    return Stage(
        "shard",
        inputs=lambda config: ("render",) if config.corpus.kind == "scenes" else (),
        settings=lambda config: _settings(config, given(config)),
        work=_work,
        means=lambda config: ShardMeans(given(config)),
        check=lambda config: complaints(lambda: look(given(config))),
        size=lambda settings: {"images": settings("shard").images, "shards": settings("shard").shards},
        unit="accepted",
        version=4,
    )


STAGE = stage()
