"""Take a trained model along: its own folder, a program of torch.export, or ONNX, each with a model card.

    python -m jobs.export model=runs/demo format=onnx out=FOLDER
    python -m jobs.export model=models:/NAME@ALIAS out=FOLDER

`out` is a folder of its own: new, empty, or one that this command wrote before, which export.json in it says. README.md
in it is the card: what the model is, what it learned from and reached, and how it is run.
"""

from __future__ import annotations

from cluster.config.export import ExportConfig
from jobs._config import Command, run

COMMAND = Command(
    "export",
    __doc__,
    ("model", "format", "out"),
    schema=ExportConfig,
    kept="nothing of {out} was touched; the same command begins again",
)


def export(config: ExportConfig) -> None:
    """Write the export, and say where it is."""
    from cluster.serving.export import export

    print(export(config))


if __name__ == "__main__":
    run(COMMAND, export)
