"""Print the resolved configuration, what each stage would do, and what is wrong; nothing is started or written.

    python -m jobs.config experiment=demo
    python -m jobs.config experiment=photos corpus.root=PHOTOS dataset.root=VOC2012 backbone.weights=FILE

`skip (done)` stands at stages that are found finished, `run` at the others, each with its folder and how much there is
to do. Then it looks at all that a run would look at before any work; the exit status is 1 if a run would be refused.
"""

from __future__ import annotations

import yaml

from cluster.config import Config, plain
from jobs._config import Command, run

COMMAND = Command("config", __doc__, ("name", "root", "corpus.root", "dataset.root"), kept="nothing was written")


def show(config: Config) -> None:
    """Print both, then refuse what a run would refuse."""
    from cluster.engine.outlook import outlook
    from cluster.engine.run import Run
    from cluster.report import summary
    from cluster.stages import STAGES
    from cluster.tracking.shipper import redact

    print(redact(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120)))
    one = Run(config, STAGES)
    names = summary.stages(one)
    print("\n".join(outlook(one, names)), flush=True)
    one.check(*names)


if __name__ == "__main__":
    run(COMMAND, show)
