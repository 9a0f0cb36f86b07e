"""What the jobs of single stages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.config import Config
from jobs._config import Command, run

if TYPE_CHECKING:
    from cluster.engine.stage import Manifest


def _nothing(manifest: Manifest) -> str:
    return ""


def main(stage: str, text: str, keys: tuple[str, ...], tell: Callable[[Manifest], str] = _nothing) -> None:
    """Run one stage, and before it the stages it reads, as the command line's configuration says.

    Then print what `tell` says of its manifest, and its counts.
    """

    def work(config: Config) -> None:
        from cluster.engine.run import Run
        from cluster.stages import STAGES
        from cluster.storage.bucket import address

        with Run(config, STAGES) as current:
            manifest = current.ensure(stage)
            if told := tell(manifest):
                print(told)
            counts = ", ".join(f"{key} {value}" for key, value in manifest.counts.items())
            print(f"{stage}: {counts}; {address(manifest.folder)}")

    run(Command(stage, text, keys), work)
