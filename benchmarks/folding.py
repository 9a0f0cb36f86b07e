"""CPU milliseconds of an image with batch norms and without them (`fss.backbones.folding`), one thread, in turn.

    python -m benchmarks.folding NAME=WEIGHTS:SIDE ...

Medians over the rounds; the difference is the largest of a level's values, in shares of the level's largest.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from fss import backbones

_ROUNDS = 9


def milliseconds(backbone: backbones.Backbone, images: torch.Tensor) -> float:
    """CPU milliseconds of one pass."""
    begin = time.process_time()
    backbone(images)
    return 1000 * (time.process_time() - begin)


def row(name: str, weights: str, side: int) -> str:
    """One network's line of the table."""
    backbone = backbones.build(name, weights)
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    light = backbone.folded(images)
    pairs = [(milliseconds(backbone, images), milliseconds(light, images)) for _ in range(_ROUNDS + 1)][1:]
    before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    levels, folded = backbone(images), light(images)
    apart = max(float((levels[level] - folded[level]).abs().max() / levels[level].abs().max()) for level in levels)
    return f"| {name}, {side} px | {before:.0f} | {after:.0f} | {ratio:.2f} | {apart:.1e} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NAME=WEIGHTS:SIDE")
    torch.set_num_threads(1)
    print("| network | with [ms] | folded [ms] | ratio | difference |\n|---|---:|---:|---:|---:|")
    for text in parser.parse_args().networks:
        name, _, rest = text.partition("=")
        weights, _, side = rest.rpartition(":")
        print(row(name, weights, int(side)), flush=True)


if __name__ == "__main__":
    main()
