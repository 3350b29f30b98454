"""Prints where a task's metric follows from the loss: ``benchmarks/scaling_metrics.py [--store URL]``.

For every task and metric of recorded runs: how far the metric of a model that was left out is from what its
losses say, beside the error of one constant, and how often the 90% interval covers it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from meta_dataset_figures import table
from tunecast.errors import report_user_errors
from tunecast.records import Run
from tunecast.scaling import Relation, build_table, relations
from tunecast.scaling.stored import rows_of

MARKDOWN_HEADER = (
    "task",
    "metric",
    "runs",
    "models",
    "error",
    "of a constant",
    "90% intervals cover",
    "holds",
)


def found(runs: Sequence[Run]) -> list[Relation]:
    """Judge every task under every metric that its runs were tested with."""
    judged = []
    for metric in sorted({run.test.metric_name for run in runs if run.test and run.test.metric_name}):
        rows = build_table(rows_of(runs, metric=metric), (), "store")
        judged += [one for one in relations(replace(rows, metric=metric)) if one.points]
    return judged


def markdown(judged: Sequence[Relation]) -> str:
    """Return the table in Markdown, tasks whose metric follows first."""
    rows = [
        (
            one.task,
            one.metric,
            str(one.points),
            str(one.groups),
            f"{one.error:.3g}",
            f"{one.constant_error:.3g}",
            f"{one.coverage:.0%}",
            "yes" if one.holds else "no",
        )
        for one in sorted(judged, key=lambda one: (not one.holds, one.metric, one.task))
    ]
    return table(MARKDOWN_HEADER, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for a store, or for the shipped meta-dataset."""
    from tunecast.store import open_for_reading

    parser = argparse.ArgumentParser("scaling_metrics.py", description=__doc__)
    parser.add_argument("--store", help="URL, SQLite file or Parquet export; default: what is shipped")
    with report_user_errors(), open_for_reading(parser.parse_args(arguments).store) as store:
        print(markdown(found(list(store.runs()))))


if __name__ == "__main__":
    main()
