"""The consensus: of each image, what the most similar things of the other images say is the thing.

The read-out of a support is linear in the difference of its two prototypes, so that the mean of K read-outs is one
read-out of the mean difference: a round costs an image one product and the walk, whatever K is.

Letters: G images, h x w grid, D dimensions, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fss.clustering.normalised_cut import second_vector
from fss.clustering.otsu import otsu
from fss.clustering.saliency import side
from fss.heads.parts.walk import affinity_walk, walked
from fss.labelling.refine import Keys

#: Share of the largest area and border that a mask may have to speak to others: what is smaller is more often a thing.
_SPEAKS = 2 / 3
#: Steps of the walk, as of the smoothed read-out.
_STEPS = 3
#: Differences of cosines are small; this brings the border's surroundings to probabilities that say something.
_SCALE = 20.0


def salient(field: torch.Tensor) -> np.ndarray:
    """(h, w) bool: the core of the salient side of (h, w, D) embeddings of length 1.

    The side takes in much of what surrounds the thing. Divided once more, its inner part is the core: often too little,
    which other images mend better than too much.
    """
    rows = field.flatten(0, 1).float().cpu().numpy()
    margin = side(second_vector(rows).reshape(field.shape[:2]))
    whole = margin > 0
    return whole if whole.sum() < 2 else margin > otsu(torch.from_numpy(margin[whole])[None]).item()


def refine(fields: Sequence[torch.Tensor], keys: Keys) -> list[np.ndarray | None]:
    """Masks of a group: of each image (h, w) float32 in [0, 1], from 0.5 the thing, or None where there is none.

    The order of the images makes no difference, but where two neighbours are equally similar.

    Args:
        fields: (h, w, D) embeddings of length 1 of each image, of any floating type.
        keys: what a mask must be like, and how it is made.
    """
    soft = [salient(field).astype(np.float32) for field in fields]
    alike = np.zeros(len(fields))
    for _ in range(keys.rounds):
        soft, alike = consensus(fields, soft, keys)
    fine = np.array([fits(mask >= 0.5, keys) for mask in soft], bool)
    if fine.any():
        fine &= alike >= np.quantile(alike[fine], 1 - keys.keep)
    return [mask if good else None for mask, good in zip(soft, fine, strict=True)]


def consensus(
    fields: Sequence[torch.Tensor], soft: Sequence[np.ndarray], keys: Keys
) -> tuple[list[np.ndarray], np.ndarray]:
    """One round: the group's next masks, and (G,) float64 mean cosines of each thing to its neighbours.

    Only masks that fit with room to spare speak, but every image is asked that has a thing. One without, and one that
    nobody speaks to, keeps its mask, and its cosine is -1.
    """
    refined, alike = list(soft), np.full(len(fields), -1.0)
    asked = np.array([i for i, mask in enumerate(soft) if 0 < (mask >= 0.5).sum() < mask.size], np.int64)
    speaks = np.array([fits(soft[i] >= 0.5, keys, _SPEAKS) for i in asked], bool)
    if not speaks.any():
        return refined, alike
    sides = np.stack([_prototypes(fields[i], soft[i] >= 0.5) for i in asked])
    speakers = np.flatnonzero(speaks)
    towards = sides[speakers, 1] - sides[speakers, 0]
    for i, (cosines, rows) in zip(asked, _neighbours(sides[:, 1], speakers, keys.neighbours), strict=True):
        if len(rows):
            refined[i] = _read(fields[i], torch.from_numpy(towards[rows].mean(axis=0)))
            alike[i] = cosines.mean()
    return refined, alike


def fits(mask: np.ndarray, keys: Keys, share: float = 1.0) -> bool:
    """Whether an (h, w) bool mask holds something, and no more of the image and of its border than the keys allow.

    A `share` below 1 allows that much of it.
    """
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(0 < mask.mean() <= share * keys.max_area and edge.mean() <= share * keys.max_border)


def _prototypes(field: torch.Tensor, mask: np.ndarray) -> np.ndarray:
    """(2, D) float32 mean embeddings of background and thing, of length 1."""
    inside = torch.from_numpy(mask).flatten().to(field.device)
    rows = field.flatten(0, 1).float()
    means = torch.stack([rows[~inside].mean(dim=0), rows[inside].mean(dim=0)])
    return torch.nn.functional.normalize(means, dim=1).cpu().numpy()


def _neighbours(descriptors: np.ndarray, speakers: np.ndarray, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each of (n, D) descriptors the cosines and places of the `number` most similar `speakers`, but for itself."""
    import faiss

    index = faiss.IndexFlatIP(descriptors.shape[1])
    index.add(descriptors[speakers])
    cosines, rows = index.search(descriptors, min(number + 1, len(speakers)))
    for own, (near, places) in enumerate(zip(cosines, rows, strict=True)):
        other = speakers[places] != own
        yield near[other][:number], places[other][:number]


def _read(field: torch.Tensor, direction: torch.Tensor) -> np.ndarray:
    """The smoothed read-out of (h, w, D) embeddings along a (D,) difference of prototypes: (h, w) float32 in [0, 1].

    A half is where the two sides of the image differ most (Otsu), since a read-out by other images is biased.
    """
    rows = field.flatten(0, 1).float()
    maps = (rows @ direction.to(rows))[None, :, None]
    maps = walked(affinity_walk(rows.T[None]), maps, _STEPS)
    margin = maps[0, :, 0].double().cpu()
    soft = torch.sigmoid(_SCALE * (margin - otsu(margin[None])))
    return soft.float().numpy().reshape(field.shape[:2])
