"""The command that a finished run prints for its model: it runs as it stands, and shows what to put in its place."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from cluster.config.help import python
from cluster.engine.run import Run
from cluster.storage import bucket, paths
from fss.imaging import images
from fss.imaging.errors import BadImageError


def predict(run: Run, model: Path) -> str:
    """`jobs.predict` with the thing in the middle of the run's first photo, looked for in all photos beside it.

    Photos that lie elsewhere than in a folder, or cannot be read, leave words in capitals to be replaced.
    """
    return f"{python()} -m jobs.predict {shlex.join([f'model={bucket.address(model)}', *_asked(run)])}"


def _asked(run: Run) -> list[str]:
    folder = _photos(run)
    found = None if folder is None else _first(folder)
    if found is None:
        return ["support=IMAGE", "support_mask=MASK", "query=PHOTOS", "out=MASKS"]
    photo, (width, height) = found
    middle = f"support_points=[[[{width // 2},{height // 2},1]]]"
    out = "masks" if paths.stored(run.folder) else run.folder / "masks"  # answers go to a disk
    return [f"support={photo}", middle, f"query={folder}", f"out={out}"]


def _first(folder: Path) -> tuple[Path, tuple[int, int]] | None:
    """The first photo of `folder` by its name that can be read, with width and height; pipes are not opened."""
    for photo in sorted(path for path in folder.iterdir() if images.is_image_name(path.name) and path.is_file()):
        with contextlib.suppress(BadImageError, OSError):
            return photo, images.upright_size(photo.read_bytes())
    return None


def _photos(run: Run) -> Path | None:
    """The folder of the corpus's photos, if it is one on this machine."""
    corpus = run.config.corpus
    if corpus.kind == "scenes":
        return run.manifest("render").folder / "JPEGImages"
    folder = Path(corpus.root or "")
    return folder if corpus.root and folder.is_dir() else None
