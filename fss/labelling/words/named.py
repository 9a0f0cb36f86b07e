"""Vectors by name from another encoder of text: `.npz` and `.safetensors`; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

_REMEDY = {
    ".npz": "expected arrays `names` (N texts) and `vectors` (N, D): numpy.savez(path, names=[...], vectors=array)",
    ".safetensors": "expected a tensor `vectors` (N, D), and in the metadata `names`, a JSON list of N texts",
}


def entries(path: str, asked: Callable[[str], bool]) -> Iterator[tuple[str, np.ndarray]]:
    """Names that are `asked` for, with their (D,) float32 vectors.

    Raises:
        ValueError: for a file that cannot be read or does not hold as many names as finite vectors.
    """
    kind = ".npz" if path.endswith(".npz") else ".safetensors"
    try:
        names, rows = (_npz if kind == ".npz" else _safetensors)(path)
    except Exception as error:  # zip, numpy, json and safetensors each have their own errors for a bad file
        raise ValueError(
            f"cannot read word vectors {path!r} ({type(error).__name__}: {error}); {_REMEDY[kind]}"
        ) from error
    if rows.ndim != 2 or len(rows) != len(names) or rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise ValueError(
            f"{path}: got {len(names)} names and {rows.dtype} vectors {rows.shape}; {_REMEDY[kind]}, finite"
        )
    for name, row in zip(names, rows, strict=True):
        if asked(name):
            yield name, row.astype(np.float32)


def _npz(path: str) -> tuple[list[str], np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return [str(name) for name in content["names"]], content["vectors"]


def _safetensors(path: str) -> tuple[list[str], np.ndarray]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as content:
        return [str(name) for name in json.loads((content.metadata() or {})["names"])], content.get_tensor("vectors")
