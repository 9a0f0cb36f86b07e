"""Word vectors of class names: fastText and GloVe text, fastText's binary models, named vectors of any other encoder.

| file | format |
|---|---|
| `.vec`, `.txt`, others, also `.gz` | a line a word, `word v1 .. vD`; fastText's first line `N D` may be missing |
| `.bin` | fastText's model, not quantised; words it does not know are made of its subwords |
| `.npz` | arrays `names` (text) and `vectors` (N, D): the output of another encoder, say a CLIP text encoder |
| `.safetensors` | tensor `vectors` (N, D) and in its metadata `names`, a JSON list |

Names are matched without regard to case, spaces, hyphens, underscores and WordNet ids, so that
`imagenet/n01440764_tench` is found as `tench` and `dining_table` as `diningtable`; a name that is spelled as in the
file is taken first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from fss.labelling.words import fasttext, named, text

#: What a reader gives back: rows by the words of the file that were asked for.
Rows = dict[str, np.ndarray]

_WORDNET = re.compile(r"^(?:.*/)?(?:n\d{8}[_ ])?")


def key(word: str) -> str:
    """What is compared of a word: `imagenet/n02690373_Airliner` and `air-liner` are both `airliner`."""
    plain = _WORDNET.sub("", word).casefold()
    return re.sub(r"[\s_\-]+", "", plain)


def synonyms(name: str) -> list[str]:
    """The names that commas separate; ids of WordNet and folders before them are left out."""
    return [synonym for part in name.split(",") if (synonym := _WORDNET.sub("", part.strip()))]


def words(name: str) -> list[str]:
    """The words of a name, which spaces, underscores or hyphens separate."""
    return [word for word in re.split(r"[\s_\-]+", name) if word]


def vectors(path: str, names: Sequence[str]) -> np.ndarray:
    """Vectors of `names`: (N, D) float32 of length 1.

    A name is its mean over synonyms; each is found as a whole, or is the mean of those of its words that the file has
    (all of length 1 before the mean).

    Args:
        path: a file or fsspec address, see the module.
        names: of classes, words separated by spaces, underscores or hyphens, synonyms by commas.

    Raises:
        ValueError: for files that are missing, damaged or of no known format, and for names without any vector.
    """
    known = _read(path, names)
    rows = [_of(name, known) for name in names]
    missing = [name for name, row in zip(names, rows, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"{path}: no vector for {len(missing)} of {len(names)} names: {_listed(missing)}. Rename the classes "
            "or add synonyms after commas ('sofa, couch'), or give another file"
        )
    return np.stack([row for row in rows if row is not None])


def similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of (N, D) and (M, D) rows of length 1: (N, M) float32 in [-1, 1]."""
    return np.clip(first @ second.T, -1, 1)


def _read(path: str, names: Sequence[str]) -> Rows:
    """Rows by exact word and by key; of words with one key the first, in fastText's files the most frequent."""
    phrases = [phrase for name in names for phrase in synonyms(name)]
    single = {word.casefold() for phrase in phrases for word in words(phrase)}
    wanted = {*names, *map(key, phrases), *map(key, single)}

    def asked(word: str) -> bool:
        return word in wanted or key(word) in wanted

    if path.endswith(".bin"):
        entries = fasttext.entries(path, asked, single)
    elif path.endswith((".npz", ".safetensors")):
        entries = named.entries(path, asked)
    else:
        entries = text.entries(path, asked)
    rows: Rows = {}
    for word, row in entries:
        rows.setdefault(word, row)
        rows.setdefault(key(word), row)
    return rows


def _of(name: str, rows: Rows) -> np.ndarray | None:
    if name in rows:
        return _unit(rows[name])
    parts = [row for s in synonyms(name) if (row := _phrase(s, rows)) is not None]
    return _unit(np.mean(parts, axis=0)) if parts else None


def _phrase(phrase: str, rows: Rows) -> np.ndarray | None:
    whole = rows.get(key(phrase))
    if whole is not None:
        return _unit(whole)
    parts = [_unit(rows[key(word)]) for word in words(phrase) if key(word) in rows]
    return _unit(np.mean(parts, axis=0)) if parts else None


def _unit(row: np.ndarray) -> np.ndarray:
    return (row / max(float(np.linalg.norm(row)), 1e-12)).astype(np.float32)


def _listed(missing: Sequence[str]) -> str:
    return ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
