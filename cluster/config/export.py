"""The keys of `jobs.export`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from fss.keys import key, one_of

FORMATS = ("segmenter", "torch", "onnx")


@dataclass
class ExportConfig:
    """Take a model along, to where this project is not."""

    model: str = key(MISSING, path=True)
    """Folder of an exported model, a run's folder, whose model is taken, or MLflow's models:/NAME@ALIAS or
    models:/NAME/VERSION."""
    format: str = key("segmenter", one_of(*FORMATS))
    """`segmenter` = the folder that `Segmenter.load` and MLflow read, `torch` = a program of `torch.export`, `onnx`."""
    out: str = MISSING
    """Folder that the export becomes."""
