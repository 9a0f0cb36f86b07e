"""The keys of `jobs.push`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from fss.keys import key


@dataclass
class PushConfig:
    """Put a model where others take it from."""

    model: str = key(MISSING, path=True)
    """Folder of an exported model, a run's folder, whose model is taken, or MLflow's models:/NAME@ALIAS or
    models:/NAME/VERSION."""
    to: str = MISSING
    """`hf://OWNER/NAME` on Hugging Face's hub, which HF_TOKEN or `hf auth login` opens, or a folder in the hub's
    layout, such as a clone of a repository elsewhere."""
    public: bool = False
    """Whether a repository that is made on the hub is open to everybody; one that is there stays as it is."""
