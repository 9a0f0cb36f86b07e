"""Compare models that were measured on the same episodes: intervals, paired differences, tables for a paper.

    python -m jobs.compare runs=[A,B,C] base=B out=DIR samples=1000
    python -m jobs.compare runs=['A:prototype read-out',A,B]

A, B and C are runs' folders or folders that evaluate wrote. Without a model's name each gives the last of its table,
the trained one, and its training-free read-outs come along once. It writes compare.md, compare.tex (booktabs),
compare.json and compare.png, and logs them as one MLflow run.
"""

from __future__ import annotations

from cluster.config.compare import CompareConfig
from jobs._config import Command, run

COMMAND = Command(
    "compare",
    __doc__,
    ("runs", "base", "samples", "seed", "out", "tracking.uri"),
    schema=CompareConfig,
    kept="nothing is lost; the same command begins again",
)


def compare(config: CompareConfig) -> None:
    """Compare, print, write and log."""
    from cluster.compare import report
    from cluster.compare.compare import compare

    comparison = compare(config)
    print(report.plain(comparison))
    print(f"\ncompare: {report.conclude(comparison, config)}")


if __name__ == "__main__":
    run(COMMAND, compare)
