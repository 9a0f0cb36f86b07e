"""What the jobs of single stages share."""

from __future__ import annotations

from cluster.config import Config
from jobs._config import Command, run


def main(stage: str, text: str, keys: tuple[str, ...]) -> None:
    """Run one stage, and before it the stages it reads, as the command line's configuration says."""

    def work(config: Config) -> None:
        from cluster.engine.run import Run
        from cluster.stages import STAGES

        with Run(config, STAGES) as current:
            manifest = current.ensure(stage)
            counts = ", ".join(f"{key} {value}" for key, value in manifest.counts.items())
            print(f"{stage}: {counts}; {manifest.folder}")

    run(Command(stage, text, keys), work)
