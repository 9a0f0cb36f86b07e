"""The passes before shards are built: contents are hashed, near-duplicates found, and rows led to their shards.

Each pass reads a part of every file of the pass before (see `partition`), so that no worker reads all of them
and none holds more than its part: about the square root of the corpus.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.engine.files import File
from cluster.engine.stage import Output, Unit
from cluster.shard import partition
from cluster.shard.inputs import CorpusInput, Entry, LostError
from cluster.tracking.redact import redact
from fss.imaging import hashes, intake
from fss.imaging.images import BadImageError
from fss.texts import shown

_ROWS = pa.schema(
    [
        ("shard", pa.int32()),
        ("path", pa.binary()),  # file names need not be UTF-8
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("error", pa.string()),
        ("offset", pa.int64()),
        ("near", pa.string()),
    ]
)
_HASHES = pa.schema([("band", pa.int32()), ("phash", pa.uint64()), ("sha256", pa.string()), ("path", pa.binary())])
_DROPS = pa.schema([("sha256", pa.string()), ("other", pa.string()), ("path", pa.binary()), ("distance", pa.int32())])


@dataclasses.dataclass(frozen=True)
class ShardLayout:
    """How rows are spread: shards, consecutive ones in `buckets`, and the bits that near-duplicates may differ in."""

    num_shards: int
    seed: int
    near: int | None = None

    @property
    def buckets(self) -> int:
        """Buckets of shards, about the square root of their number."""
        return -(-self.num_shards // self.width)

    @property
    def width(self) -> int:
        """Shards in a bucket."""
        return max(1, round(self.num_shards**0.5))

    @property
    def bands(self) -> int:
        """Parts of a perceptual hash, one of which two near ones share."""
        return 0 if self.near is None else self.near + 1

    def bucket(self, sha256: str) -> int:
        """The bucket of the inputs with this content."""
        return intake.shard_of(intake.Digest("", 0, sha256), self.num_shards, self.seed) // self.width


@dataclasses.dataclass(frozen=True)
class HashChunk:
    """Hashes the files of one chunk of the listing, by content and perhaps by looks, and notes each one's shard."""

    source: CorpusInput
    layout: ShardLayout
    limits: intake.Limits

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a list of `Entry`."""
        layout = self.layout
        hashed = [self._digest(entry) for entry in unit.payload]
        hashed.sort(key=lambda item: (item[0].path, item[0].offset))
        rows = [(intake.shard_of(digest, layout.num_shards, layout.seed), digest) for digest, _ in hashed]
        shards = np.array([shard for shard, _ in rows])
        files = {f"hashes/{unit.name}.rows": partition.pack(_table(rows), shards // layout.width, layout.buckets)}
        if layout.near is not None:
            files[f"hashes/{unit.name}.looks"] = self._looks(hashed)
        return Output(files, {}, {"inputs": len(rows)})

    def _digest(self, entry: Entry) -> tuple[intake.Digest, int | None]:
        path, size, offset, error = entry
        if not error and size > self.limits.max_bytes:
            error = f"too_large: {size} bytes are over the budget of {self.limits.max_bytes} (corpus.max_bytes)"
        if error:
            return intake.Digest(path, size, "", error, offset), None
        try:
            data = self.source.read(path, offset, size)
        except LostError as lost:
            return intake.Digest(path, size, "", str(lost), offset), None
        digest = intake.Digest(path, len(data), hashlib.sha256(data).hexdigest(), "", offset)
        return digest, None if self.layout.near is None else self._phash(data)

    def _phash(self, data: bytes) -> int | None:
        try:
            return hashes.phash(intake.accept(data, self.limits, hashes.SIDE)[0].image)
        except BadImageError:
            return None  # it will be rejected, and must not stand for others

    def _looks(self, hashed: Iterable[tuple[intake.Digest, int | None]]) -> bytes:
        """Every hash once for each band, in as many parts a band as there are buckets, chosen by the band's bits."""
        known = [(digest, phash) for digest, phash in hashed if phash is not None]
        phashes = np.array([phash for _, phash in known], np.uint64)
        keys = hashes.bands(phashes, self.layout.bands)
        number, buckets = len(known), self.layout.buckets
        parts = [band * buckets + (_spread(key) % np.uint64(buckets)).astype(np.int64) for band, key in enumerate(keys)]
        columns = {
            "band": np.repeat(np.arange(len(keys), dtype=np.int32), number),
            "phash": np.tile(phashes, len(keys)),
            "sha256": [digest.sha256 for digest, _ in known] * len(keys),
            "path": [_raw(digest.path) for digest, _ in known] * len(keys),
        }
        table = pa.table(columns, schema=_HASHES)
        return partition.pack(table, np.concatenate(parts), len(keys) * buckets)


@dataclasses.dataclass(frozen=True)
class FindNear:
    """Compares the hashes of one part of one band: which images are near one with a smaller content hash."""

    folder: Path
    chunks: tuple[File, ...]
    layout: ShardLayout

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the part's number, over all bands."""
        assert self.layout.near is not None
        table = partition.gather(self.folder, self.chunks, unit.payload).sort_by(
            [("sha256", "ascending"), ("path", "ascending")]
        )
        sha256, paths = table["sha256"].to_pylist(), table["path"].to_pylist()
        first = [i for i, value in enumerate(sha256) if i == 0 or value != sha256[i - 1]]
        phashes = table["phash"].to_numpy()[first]
        band = hashes.bands(phashes, self.layout.bands)[unit.payload // self.layout.buckets]
        neighbours = hashes.earlier_neighbours(phashes, band, self.layout.near)
        rows = [
            {"sha256": sha256[first[a]], "other": sha256[first[b]], "path": paths[first[b]], "distance": bits}
            for a, b, bits in neighbours
        ]
        buckets = np.array([self.layout.bucket(row["sha256"]) for row in rows], np.int64)
        data = partition.pack(pa.Table.from_pylist(rows, schema=_DROPS), buckets, self.layout.buckets)
        return Output({f"hashes/{unit.name}.drops": data}, {}, {"images": len(first)})


@dataclasses.dataclass(frozen=True)
class Route:
    """Collects the rows of one bucket of shards from all chunks, with what near-duplicates were found among them."""

    folder: Path
    chunks: tuple[File, ...]
    drops: tuple[File, ...]
    layout: ShardLayout

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the bucket's number."""
        table = partition.gather(self.folder, self.chunks, unit.payload)
        if self.drops:
            near = self._near(unit.payload)
            column = pa.array([near.get(sha256, "") for sha256 in table["sha256"].to_pylist()], pa.string())
            table = table.set_column(table.schema.get_field_index("near"), "near", column)
        shards = table["shard"].to_numpy() - unit.payload * self.layout.width
        data = partition.pack(table, shards, self.layout.width)
        return Output({f"hashes/{unit.name}.rows": data}, {}, {"inputs": len(table)})

    def _near(self, bucket: int) -> dict[str, str]:
        """What the ledger says of each dropped content: the neighbour with the smallest hash over all bands."""
        nearest: dict[str, tuple[str, str]] = {}
        for row in partition.gather(self.folder, self.drops, bucket).to_pylist():
            text = f"{redact(shown(_path(row['path'])))} (near, {row['distance']} of 64 bits differ)"
            nearest[row["sha256"]] = min(nearest.get(row["sha256"], ("~", "")), (row["other"], text))
        return {sha256: text for sha256, (_, text) in nearest.items()}


def read_digests(folder: Path, file: File, part: int) -> list[intake.Digest]:
    """The inputs of one shard, from its bucket's file.

    Raises:
        DamagedFileError: if that is not what was written.
    """
    rows: list[dict[str, Any]] = partition.unpack(folder, file, part).drop_columns(["shard"]).to_pylist()
    return [intake.Digest(**{**row, "path": _path(row["path"])}) for row in rows]


def _table(rows: list[tuple[int, intake.Digest]]) -> pa.Table:
    columns = {
        field.name: [getattr(digest, field.name) for _, digest in rows] for field in dataclasses.fields(intake.Digest)
    }
    columns["error"] = [shown(error) for error in columns["error"]]
    return pa.table(
        {**columns, "shard": [s for s, _ in rows], "path": [_raw(p) for p in columns["path"]]}, schema=_ROWS
    )


def _spread(keys: np.ndarray) -> np.ndarray:
    """(n,) uint64 mixed, so that common bit patterns do not meet in one part."""
    return (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _path(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
