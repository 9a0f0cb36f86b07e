"""Puts a model on a model hub, or into a folder as hubs lay it out: the `Segmenter`'s own files and the card."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from cluster.config.export import ExportConfig
from cluster.config.push import PushConfig
from cluster.engine.refused import RefusedError
from cluster.serving.export import export
from cluster.tracking.redact import redact

_HUB = "hf://"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(config: PushConfig) -> str:
    """Push, and say where it is.

    Raises:
        ValueError: as `export`, for an address that is none, or if the hub refuses.
    """
    if not config.to.startswith(_HUB):
        return export(ExportConfig(config.model, "segmenter", config.to), key="to").replace("export:", "push:", 1)
    name = config.to.removeprefix(_HUB)
    if not _NAME.fullmatch(name):
        raise RefusedError(f"to: expected hf://OWNER/NAME or a folder, got {config.to}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        export(ExportConfig(config.model, "segmenter", str(folder)))
        return f"push: {_upload(folder, name, config.public)}"


def _upload(folder: Path, name: str, public: bool) -> str:
    """Make the repository if there is none, and one commit of all files; the repository's address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    hub = HfApi()
    try:
        place = hub.create_repo(name, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="A model with its card")
    except (HTTPError, OSError) as error:
        said = redact(" ".join(str(error).split())[:200])
        raise ValueError(
            f"to: the hub did not take hf://{name} ({said}); set HF_TOKEN to a token that may write there, or "
            "HF_ENDPOINT to another hub"
        ) from error
    return str(place)
