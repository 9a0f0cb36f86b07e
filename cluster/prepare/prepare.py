"""Builds the class masks that a labelled data set lacks: COCO's from its JSON, PASCAL's merged from VOC and SBD.

A new folder of masks is filled under a hidden name and renamed once it is whole: a killed run leaves nothing that could
be taken for a data set, and the next run goes on with what is there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.io import loadmat

from cluster.engine import publish
from cluster.engine.places import own_folder
from fss.datasets import DatasetKeys, coco20i, pascal5i
from fss.datasets.parts import coco, files, instances, voc
from fss.imaging import images

T = TypeVar("T")
R = TypeVar("R")

#: What a folder begins with that becomes a root of its own; it says of what.
_MARK = "prepare.json"
#: Where SBD's class files are below a folder that somebody unpacked it into.
_SBD = tuple(
    f"{outer}{inner}cls" for outer in ("", "SBD/", "sbd/") for inner in ("", "dataset/", "benchmark_RELEASE/dataset/")
)


def place(config: DatasetKeys, root: Path, out: str | None) -> Path:
    """Where the masks of `root` go: there, or into the folder `out` if that is set and another one.

    Raises:
        ValueError: if `out` is somebody else's folder, or was made of another data set.
    """
    if out is None or Path(out).resolve() == root.resolve():
        return root
    folder = own_folder(out, "out", _MARK)
    made, about = publish.read_sealed(folder / _MARK), _about(config, root)
    if made not in (None, about):
        raise ValueError(f"out: expected a folder made of {about}, {folder} was made of {made}; set another out=")
    return folder


def _about(config: DatasetKeys, root: Path) -> dict[str, str]:
    return {"dataset": config.name, "root": str(root.resolve())}


def build(config: DatasetKeys, root: Path, out: Path, workers: int) -> list[str]:
    """Write the masks that `root` lacks into `out`, which may be `root`; say what was done, a line for each folder.

    Another `out`, see `place`, becomes a root of its own: what it does not get written, it gets linked.

    Raises:
        ValueError: if what the masks are made from is missing or damaged.
    """
    if isinstance(config, coco20i.Keys):
        return _coco(config, root, out, workers)
    if isinstance(config, pascal5i.Keys):
        return _pascal(config, root, out, workers)
    if out != root:
        raise ValueError(f"expected no out= for {config.name}, of which nothing has to be built, got {out}")
    return []


def parallel(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Results in the order of `items`, from `workers` processes."""
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    deaf = (signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C reaches all processes; the first ends the others
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), *deaf) as pool:
        yield from pool.map(function, items, chunksize=max(1, min(64, len(items) // (4 * workers))))


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """The folder to write into: `target` itself where it holds something, else a hidden one that becomes it."""
    if target.is_dir() and any(target.iterdir()):
        yield target
        return
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    publish.write_bytes(_mark(target), b"")
    partial.replace(target)


def _mark(target: Path) -> Path:
    """What says that a folder of masks was made here, so that its masks may be made again."""
    return target.with_name(f".{target.name}.prepared")


def _write(
    target: Path,
    tasks: Sequence[tuple[str, T]],
    function: Callable[[tuple[Path, T]], bool],
    size: Callable[[T], tuple[int, int]],
    workers: int,
) -> str:
    """Run `function` over (path in `target`, source), which says whether it had to write.

    Raises:
        ValueError: if that would replace masks that somebody else made.
    """
    if not _mark(target).is_file():
        there = [(target / f"{stem}.png", source) for stem, source in tasks if (target / f"{stem}.png").is_file()]
        foreign = [path.name for path, source in there if not _is_mask(path, size(source))]
        if foreign:
            raise ValueError(
                f"{target}: {len(foreign)} files, as {foreign[0]}, are no class masks of their images, and were not "
                "made here; expected class indices, or set out=DIR to make masks in another place"
            )
    with _whole(target) as folder:
        made = list(parallel(function, [(folder / f"{stem}.png", source) for stem, source in tasks], workers))
    return f"{target}: {sum(made)} masks written, {len(made) - sum(made)} were there"


def _is_mask(path: Path, size: tuple[int, int]) -> bool:
    try:
        return path.is_file() and files.read_mask(path).shape == size[::-1]
    except ValueError:
        return False


def _link(source: Path | None, target: Path) -> None:
    if source is not None and source.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


def _coco(config: coco20i.Keys, root: Path, out: Path, workers: int) -> list[str]:
    chosen = coco.find_year(root, config.year)
    said: list[str] = []
    for part in (f"val{chosen}", f"train{chosen}"):
        photos, there = coco.image_folder(root, part), coco.mask_folder(root, part)
        listed = coco.instances_file(root, part)
        target = out / "annotations" / part
        if photos is None:
            said.append(f"{root / part}: no such images, nothing to build")
            continue
        if out != root:
            publish.write_sealed(out / _MARK, _about(config, root))
            _link(photos, out / part)
            _link(listed, coco.instances_file(out, part))
            _link(there, target)
        if listed.is_file() and there in (None, target):
            annotated = instances.load_instances(listed)
            tasks = [(stem, image) for stem, image in annotated.items() if files.image_file(photos, stem).is_file()]
            line = _write(target, tasks, _write_coco, lambda image: (image.width, image.height), workers)
            said.append(line + _without_image(len(annotated) - len(tasks)))
        elif there is not None:
            said.append(f"{there}: masks are there")
        elif part.startswith("val"):
            coco.open_part(root, part)  # says what is missing
        else:
            said.append(f"{listed}: not there, no masks built for {photos}")
    return said


def _write_coco(task: tuple[Path, instances.Annotated]) -> bool:
    path, image = task
    if _is_mask(path, (image.width, image.height)):
        return False
    publish.write_bytes(path, images.encode_png(instances.paint(image)))
    return True


def _pascal(config: pascal5i.Keys, root: Path, out: Path, workers: int) -> list[str]:
    merged, own = (root / folder for folder in voc.MASK_FOLDERS)
    mats = find_sbd(root, config.sbd)
    photos = root / voc.IMAGES
    if not photos.is_dir():
        raise ValueError(f"expected VOC's images in {photos}; check dataset.root")
    if out != root:
        publish.write_sealed(out / _MARK, _about(config, root))
        for folder in (voc.IMAGES, "ImageSets", own.name, *([merged.name] if mats is None else [])):
            _link(root / folder, out / folder)
    if mats is None:
        if not merged.is_dir() and not own.is_dir():
            raise ValueError(f"expected {own} of VOC2012 to build {merged.name} from; check dataset.root")
        return [f"{merged if merged.is_dir() else own}: masks are there; no SBD found to merge (dataset.sbd=FOLDER)"]
    sources = {path.stem: path for path in mats.glob("*.mat")} | {path.stem: path for path in own.glob("*.png")}
    if not any(path.suffix == ".png" for path in sources.values()):
        raise ValueError(f"expected VOC's own masks in {own}, which go before SBD's, found none; check dataset.root")
    known = {stem: source for stem, source in sorted(sources.items()) if files.image_file(photos, stem).is_file()}
    if not known:
        raise ValueError(f"expected the images of {own} in {photos}, found none; check dataset.root")
    tasks = [(stem, (source, files.image_file(photos, stem))) for stem, source in known.items()]
    line = _write(out / merged.name, tasks, _write_pascal, lambda source: files.read_size(source[1]), workers)
    return [line + _without_image(len(sources) - len(known))]


def _without_image(number: int) -> str:
    return f", {number} without an image left out" if number else ""


def find_sbd(root: Path, sbd: str | None) -> Path | None:
    """The folder of SBD's class files: below `sbd` if it is given, else below or beside `root`; None if none is there.

    Raises:
        ValueError: if it is given and holds none.
    """
    bases = [Path(sbd)] if sbd else [root, *list(root.resolve().parents)[:2]]
    inner = (*_SBD, ".") if sbd else _SBD
    folder = next((b / i for b in bases for i in inner if next((b / i).glob("*.mat"), None)), None)
    if sbd and folder is None:
        raise ValueError(f"expected SBD's dataset/cls/*.mat below {sbd}; check dataset.sbd")
    return folder


def _write_pascal(task: tuple[Path, tuple[Path, Path]]) -> bool:
    path, (source, photo) = task
    size = files.read_size(photo)
    if _is_mask(path, size):
        return False
    mask = read_sbd(source) if source.suffix == ".mat" else files.read_mask(source)
    odd = [int(v) for v in np.unique(mask) if v > len(pascal5i.PASCAL_CLASSES) and v != images.VOID]
    if mask.shape != size[::-1] or odd:
        raise ValueError(
            f"{source}: expected {size[0]}x{size[1]} class indices 0..20 and 255, got {mask.shape[::-1]} {odd[:5]}"
        )
    # Grey, not palette: OpenCV, which other code of the field reads masks with, would turn a palette into colours.
    publish.write_bytes(path, images.encode_png(mask))
    return True


def read_sbd(path: Path) -> np.ndarray:
    """(H, W) uint8 class indices of an SBD file, its GTcls.Segmentation.

    Raises:
        ValueError: if it is damaged or something else.
    """
    try:
        mask = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many types on damaged files
        raise ValueError(f"{path}: expected a MATLAB file of SBD with GTcls.Segmentation: {error}") from error
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected a matrix of class indices, got {mask.dtype} of shape {mask.shape}")
    return files.narrow(mask)
