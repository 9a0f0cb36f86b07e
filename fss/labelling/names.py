"""Image-level class names, the labels of weak supervision: which names an image shows, and their numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fss.datasets import Dataset, areas
from fss.datasets.parts.files import without_suffix
from fss.texts import read_text

_REMEDY = (
    "expected a line an image: its name, then the names of what it shows, in further columns or separated by "
    "semicolons (.tsv: columns by tabs, others: by commas); set source.names"
)


@dataclass(frozen=True)
class ImageNames:
    """The names of every image; label i of a map is `names[i - 1]`, the names being in alphabetical order."""

    names: tuple[str, ...]
    images: Mapping[str, tuple[int, ...]]
    """Labels, from 1, by the image's path without its suffix, or by its name alone."""

    @classmethod
    def of(cls, table: Mapping[str, Iterable[str]]) -> ImageNames:
        """Of names by image."""
        names = tuple(sorted({name for shown in table.values() for name in shown}))
        numbers = {name: number for number, name in enumerate(names, 1)}
        return cls(names, {image: tuple(sorted({numbers[n] for n in shown})) for image, shown in table.items()})

    def labels(self, path: str) -> tuple[int, ...]:
        """Those of the image that came from `path`, none if it is not in the table."""
        name = PurePosixPath(path)
        return self.images.get(str(name.with_suffix("")), self.images.get(name.stem, ()))


def read_names(path: str) -> dict[str, tuple[str, ...]]:
    """Names by image of a table; an image on several lines shows all of their names.

    Suffixes of images may be left out. A first line whose first column is `image` is a header. A name may bring
    synonyms after commas, if quoted.

    Raises:
        ValueError: for a file that cannot be read, is no text, is empty, or has a line without a name.
    """
    table: dict[str, tuple[str, ...]] = {}
    try:
        lines = io.StringIO(read_text(Path(path)), newline="")
        rows = list(csv.reader(lines, delimiter="\t" if path.endswith(".tsv") else ",", strict=True))
    except (OSError, csv.Error) as error:
        raise ValueError(f"cannot read {path} ({type(error).__name__}: {error}); {_REMEDY}") from error
    for number, row in enumerate(rows, start=1):
        image, *rest = [column.strip() for column in row] or [""]
        shown = tuple(name for column in rest for part in column.split(";") if (name := part.strip()))
        if not any((image, *rest)) or (number == 1 and image.casefold() == "image"):
            continue
        if not image or not shown:
            raise ValueError(f"{path}, line {number}: got {','.join(row)!r}; {_REMEDY}")
        key = without_suffix(str(PurePosixPath(image)))
        table[key] = (*table.get(key, ()), *shown)
    if not table:
        raise ValueError(f"{path}: no image has a name; {_REMEDY}")
    return table


def names_of_masks(dataset: Dataset, images: Iterable[str], classes: Iterable[int]) -> dict[str, tuple[str, ...]]:
    """Class masks reduced to the names of those of `classes` that an image shows; images without one are left out."""
    wanted = set(classes)
    table = {}
    for image in images:
        shown = tuple(dataset.class_names[c - 1] for c in areas(dataset, image) if c in wanted)
        if shown:
            table[dataset.path(image).stem] = shown
    return table
