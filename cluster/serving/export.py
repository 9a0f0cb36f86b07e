"""Takes a model along: its own folder, a program of torch.export, or ONNX, each with its card.

    OUT/export.json    what the export is: format, inputs, side of the images, sha256 of the other files
    OUT/README.md      the card
    OUT/...            the model

The folder is made beside OUT and takes its name when it is whole.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cluster.config.export import ExportConfig
from cluster.engine import publish
from cluster.engine.places import own_folder
from cluster.engine.refused import RefusedError, refusing
from cluster.serving import reached, registry
from fss import shards
from fss.segmenter import Segmenter, card, portable, pyfunc

#: What an export's folder is known by.
_MARK = "export.json"
#: What model hubs, which are git repositories, keep beside git.
_LARGE = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def export(config: ExportConfig, key: str = "out") -> str:
    """Write the export, and say where it is; `key` is what its place was given by.

    Raises:
        RefusedError: for a model that cannot be used or has no such form, or an output that is somebody else's.
    """
    out = own_folder(config.out, key, _MARK)
    _refuse_additions(out, key)
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry.folder(config.model, Path(scratch))
        with refusing():
            model = Segmenter.load(folder, "cpu")
        made = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            publish.write_bytes(made / card.NAME, _card(folder, model, config.format).encode())
            try:
                _WRITERS[config.format](folder, model, made)
            except ValueError as error:
                raise RefusedError(f"format={config.format}: {error}; set format=segmenter") from error
            publish.write_json(made / _MARK, _about(model, config.format, made))
            shutil.rmtree(out, ignore_errors=True)
            made.rename(out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return f"export: {config.format} of {model.about['model']['name']}; {out}"


def _refuse_additions(out: Path, key: str) -> None:
    """Refuse a folder of an earlier export into which others have put files: they would be lost."""
    if not (out / _MARK).is_file():
        return
    known = {_MARK, *publish.read_json(out / _MARK)["sha256"]}
    added = sorted({path.name for path in out.iterdir()} - known)
    if added:
        raise RefusedError(f"{key}: expected an earlier export alone, {out} also holds {added[0]}; set another {key}=")


def _copied(folder: Path, model: Segmenter, out: Path) -> None:
    publish.write_bytes(out / ".gitattributes", _LARGE)
    for name, data in pyfunc.files().items():
        publish.write_bytes(out / name, data)
    for name in (*model.about["sha256"], "model.json"):
        publish.write_bytes(out / name, (folder / name).read_bytes())


def _program(folder: Path, model: Segmenter, out: Path) -> None:
    program = portable.program(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of weights whose channels come last, which are saved as they are
        torch.export.save(program, out / "program.pt2")


def _onnx(folder: Path, model: Segmenter, out: Path) -> None:
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of every constant that they fold
    portable.to_onnx(portable.program(model)).save(out / "model.onnx")


_WRITERS: dict[str, Callable[[Path, Segmenter, Path], None]] = {
    "segmenter": _copied,
    "torch": _program,
    "onnx": _onnx,
}


def _about(model: Segmenter, form: str, folder: Path) -> dict[str, Any]:
    return {
        "format": form,
        "size": model.extractor.size,
        "model": model.about,
        "sha256": {path.name: shards.sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
    }


def _card(folder: Path, model: Segmenter, form: str) -> str:
    evaluations = reached.evaluations(folder, model.about)
    return card.text(
        model.about,
        run=card.how_to_run(form, model.about["backbone"]),
        measured="\n\n".join(map(reached.told, evaluations)),
        figures=[figure for one in evaluations for figure in reached.figures_of(one)],
    )
