"""The files of a shard's label maps and regions, as label and refine write them and pair reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from cluster.engine import publish
from cluster.engine.stage import Output
from fss import shards
from fss.imaging import images
from fss.labelling import pseudo

Labelled = tuple[shards.Sample, Sequence[pseudo.Region]]


def encoded(key: str, maps: Iterable[np.ndarray]) -> shards.Sample:
    """An image's (H, W) label maps as files, one a layer."""
    return key, {f"{number}.png": images.encode_png(_narrow(each)) for number, each in enumerate(maps)}


def _narrow(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def output(stem: str, labelled: Sequence[Labelled]) -> Output:
    """`STEM.tar` and `STEM.regions.parquet` of the images of one shard, in their order."""
    samples: list[shards.Sample] = [sample for sample, _ in labelled]
    rows = [(key, region) for (key, _), regions in labelled for region in regions]
    files = {f"{stem}.tar": shards.pack(samples), f"{stem}.regions.parquet": _table(rows)}
    counts = {f"{stem}.tar": len(samples), f"{stem}.regions.parquet": len(rows)}
    return Output(files, counts, {"images": len(samples), "regions": len(rows)})


def _table(rows: Sequence[tuple[str, pseudo.Region]]) -> bytes:
    dimensions = len(rows[0][1].descriptor) if rows else 1
    descriptors = np.stack([r.descriptor for _, r in rows]) if rows else np.zeros((0, 1), np.float32)
    flat = pa.array(descriptors.astype(np.float16).ravel(), pa.float16())
    columns = {
        "key": pa.array([key for key, _ in rows], pa.string()),
        "layer": pa.array([r.layer for _, r in rows], pa.int16()),
        "label": pa.array([r.label for _, r in rows], pa.int32()),
        "area": pa.array([r.area for _, r in rows], pa.float32()),
        "border": pa.array([r.border for _, r in rows], pa.float32()),
        "empty_rows": pa.array([r.empty_rows for _, r in rows], pa.float32()),
        "empty_columns": pa.array([r.empty_columns for _, r in rows], pa.float32()),
        "descriptor": pa.FixedSizeListArray.from_arrays(flat, dimensions),
    }
    return publish.parquet(pa.table(columns))
