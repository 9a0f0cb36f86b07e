"""The frames of a video as images, one after the other; PyAV reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

#: Names of what is read as a video.
SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})


def is_video(path: Path) -> bool:
    """Whether `path` is one, by its name."""
    return path.suffix.lower() in SUFFIXES


def named(path: Path, number: int) -> Path:
    """What a frame of a video is called; frames are counted from 1.

    >>> named(Path("clips/cat.mp4"), 7).as_posix()
    'clips/cat.mp4/cat-000007.png'
    """
    return path / f"{path.stem}-{number:06d}.png"


def check(path: Path) -> None:
    """Look at the first frame of a video.

    Raises:
        ValueError: if there is none.
    """
    if next(frames(path), None) is None:
        raise ValueError(f"{path}: expected a video with at least one frame, got none; give another file")


def frames(path: Path, every: int = 1) -> Iterator[tuple[Path, Image.Image]]:
    """The first frame and every so-manyth after it, RGB and upright, each with its name.

    Raises:
        ValueError: at what cannot be read.
    """
    import av

    number = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: expected a video, got a file without pictures; give another file")
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0), 1):
                if (number - 1) % every == 0:
                    yield named(path, number), frame.to_image().rotate(frame.rotation, expand=True)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(
            f"{path}: expected a video, cannot read what follows frame {number} ({error}); write it anew as MP4"
        ) from error
