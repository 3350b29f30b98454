"""Checks the weak spots of the scaling study: seeds, rates, annealing, more data, and an encoder-decoder.

    python benchmarks/study_checks.py [--runs FILE_OR_URL] [--output docs/scaling-study.md]

Reads the shipped runs of ``plans/study.yaml``, and beside them those of its companions ``study-seeds``,
``study-rates``, ``study-annealed``, ``study-large`` and ``study-t5``, which are not shipped, and prints a
table for each companion. With ``--output``, the text between that file's markers of checks is replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from scaling_study import insert, markdown, percent
from study_design import (
    METHODS,
    PEFT,
    PRETRAINING,
    RunSpec,
    chosen_pipelines,
    keys_of,
    read_cells,
)
from study_findings import Points, by_data, by_factor, per_doubling
from tunecast.records import Run
from tunecast.store import open_for_reading
from tunecast.store.redaction import shared_session

RUNS = Path(__file__).parent / "results" / "study-checks.parquet"
MEASURE = "test"
DECODER, ENCODER_DECODER = "nano-4m", "t5-4m-whole"
ANNEALED = "-annealed"


def _annealed(cell: RunSpec) -> bool:
    return cell.last or cell.model.endswith(ANNEALED)


PRETRAININGS = (
    replace(PRETRAINING, name="1M to 4M, not annealed", chosen=lambda c: not _annealed(c)),
    replace(PRETRAINING, name="1M to 4M, annealed", chosen=lambda c: c.model.endswith(ANNEALED)),
    replace(PRETRAINING, name="4M to 16M, annealed", chosen=lambda c: _annealed(c) and c.pretraining > 2e6),
    replace(PRETRAINING, name="1M to 16M, annealed", chosen=_annealed),
    replace(PRETRAINING, name="1M to 16M, only the last annealed", chosen=lambda c: ANNEALED not in c.model),
)
Losses = Mapping[tuple[str, str, str, int], float]
"""Test losses by method, task, base model and number of examples.

Numbers of examples have two digits: "all" may be a few more or less, since what is left out has changed.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default=str(RUNS), help="Store or export of the companions' runs.")
    parser.add_argument("--output", type=Path, help="A Markdown file with the two markers.")
    options = parser.parse_args(arguments)
    with open_for_reading() as shipped, open_for_reading(options.runs) as collected:
        text = checks([*shipped.runs(), *collected.runs()])
    if options.output is None:
        print(text)
    else:
        insert(options.output, text, "checks")


def checks(runs: Sequence[Run]) -> str:
    """All tables, as Markdown."""

    def of(*sessions: str) -> list[Run]:
        names = {name for session in sessions for name in (session, shared_session(session))}
        return [run for run in runs if run.session in names]

    parts = {
        "Seeds": show_seeds(of("study", "study-seeds")),
        "Learning rates by data size": show_rates(of("study-rates")),
        "Annealed checkpoints": show_pretraining(read_cells(of("study", "study-annealed"))),
        "More data": show_sizes(read_cells(of("study-large"))),
        "An encoder-decoder": show_architectures(read_cells(of("study", "study-t5"))),
    }
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def show_seeds(runs: Sequence[Run]) -> str:
    """How far test losses differ between seeds, and what a doubling of the data changes with each."""
    seeds = sorted({run.seed for run in runs})
    cells = [chosen_pipelines(read_cells(run for run in runs if run.seed == seed)) for seed in seeds]
    losses = [_losses(of) for of in cells]
    keys = sorted(set(losses[0]).intersection(*losses[1:])) if len(seeds) > 1 else []
    if not keys:
        return "No setting has runs with several seeds yet."
    rows = []
    for method in sorted({key[0] for key in keys}, key=METHODS.index):
        mine = [key for key in keys if key[0] == method]
        spread = np.std(np.log([[of[key] for key in mine] for of in losses]), axis=0, ddof=1)
        shared = [[c for c in of if _key(c) in keys] for of in cells]
        rows.append(
            [
                *(method, str(len(mine))),
                *(f"{100 * share:.1f}" for share in (np.sqrt(np.mean(spread**2)), spread.max())),
                *(_change(_curves(of, method)) for of in shared),
            ]
        )
    header = ["method", "settings", "standard deviation, %", "largest, %"]
    return "\n\n".join(
        [
            f"{len(seeds)} seeds; a setting is a task, a base model and a size. The standard deviation of "
            "the log test loss is the root mean square over settings. The last columns have the change of "
            "the test loss per doubling of the data in percent, with 90% bootstrap intervals over curves.",
            markdown([*header, *(f"doubling, seed {seed}" for seed in seeds)], rows),
            f"One method is best with every seed in {_agreeing(losses, keys)} settings.",
        ]
    )


def _key(cell: RunSpec) -> tuple[str, str, str, int]:
    return cell.method, cell.task, cell.model, int(float(f"{cell.planned:.2g}"))


def _losses(cells: Iterable[RunSpec]) -> Losses:
    return {_key(cell): cell.losses[MEASURE] for cell in cells}


def _curves(cells: Sequence[RunSpec], method: str) -> list[Points]:
    """The curves over data size of a method on all tasks."""
    return [
        curve
        for of, task in keys_of(cells)
        if of == method
        for curve in by_data(cells, method, task, MEASURE)
    ]


def _change(groups: Sequence[Points]) -> str:
    return percent(*per_doubling(groups)) if groups else "-"


def _groups(cells: Sequence[RunSpec]) -> list[tuple[str, str]]:
    """The (method, task) groups that have cells."""
    there = {(cell.method, cell.task) for cell in cells}
    return [group for group in keys_of(cells) if group in there]


def _agreeing(losses: Sequence[Losses], keys: Iterable[tuple[str, str, str, int]]) -> str:
    """In how many settings with all methods every seed has the same winner."""
    settings: dict[tuple[str, str, int], list[tuple[str, str, str, int]]] = {}
    for key in keys:
        settings.setdefault(key[1:], []).append(key)
    whole = [members for members in settings.values() if len(members) == len(METHODS)]
    winners = [{min(members, key=of.__getitem__) for of in losses} for members in whole]
    return f"{sum(len(names) == 1 for names in winners)} of {len(whole)}"


def show_rates(runs: Sequence[Run]) -> str:
    """The best rate at each data size, and what the study's one rate for all of them loses."""
    found: dict[tuple[str, str], dict[int, dict[float, float]]] = {}
    for run in runs:
        for cell in read_cells([run]):
            rates = found.setdefault((cell.method, cell.task), {}).setdefault(cell.data_size, {})
            rates[run.pipeline.number("learning_rate")] = cell.losses[MEASURE]
    rows = []
    ends: dict[str, dict[str, dict[tuple[str, float], float]]] = {"one rate": {}, "best rates": {}}
    for (method, task), sizes in sorted(found.items()):
        tried = sorted({rate for rates in sizes.values() for rate in rates})
        usual = tried[len(tried) // 2]
        whole = {size: rates for size, rates in sorted(sizes.items()) if len(rates) == len(tried)}
        best = {size: min(rates, key=rates.__getitem__) for size, rates in whole.items()}
        if not best:
            continue
        one, each = (
            [(float(size), sizes[size][rate or best[size]]) for size in best] for rate in (usual, None)
        )
        for way, points in zip(ends, (one, each), strict=True):
            ends[way].setdefault(method, {}).update({(task, size): loss for size, loss in points})
        rows.append(
            [
                *(method, task),
                ", ".join(f"{rate / usual:.3g}" for rate in best.values()),
                ", ".join(
                    f"{100 * (one_rate / tuned - 1):.1f}"
                    for (_, one_rate), (_, tuned) in zip(one, each, strict=True)
                ),
                *(_change([points]) for points in (one, each)),
            ]
        )
    if not rows:
        return "Not run yet."
    header = ["method", "task", "best rate by size", "the study's is worse by, %", "doubling data, one rate"]
    return "\n\n".join(
        [
            "Five rates, each twice the one before it, at each size, smallest size first. The best rate is a "
            "multiple of the study's, the middle one. The last columns have the change of the test loss per "
            "doubling of the data in percent, with the study's rate and with each size's best. The best is "
            "the best on the test examples themselves, so its loss is a little too low.",
            markdown([*header, "doubling data, best rates"], rows),
            *(f"With {way}, {_ahead(of)}." for way, of in ends.items()),
        ]
    )


def _ahead(losses: Mapping[str, Mapping[tuple[str, float], float]]) -> str:
    """In how many settings of task and size full finetuning is ahead of LoRA."""
    full, lora = (losses.get(method, {}) for method in ("full", "lora"))
    both = full.keys() & lora.keys()
    return (
        f"full finetuning is ahead of LoRA in {sum(full[s] < lora[s] for s in both)} of {len(both)} settings"
    )


def show_pretraining(cells: Sequence[RunSpec]) -> str:
    """The change per doubling of pretraining, between annealed checkpoints and others."""
    nano = [cell for cell in chosen_pipelines(cells) if cell.model.startswith("nano")]
    if not any(cell.model.endswith(ANNEALED) for cell in nano):
        return "Not run yet."
    rows = []
    for method, task in _groups(nano):
        changes = [by_factor(nano, factor, method, task, MEASURE) for factor in PRETRAININGS]
        rows.append([method, task, *map(_change, changes)])
    return "\n\n".join(
        [
            "Change of the test loss per doubling of the pretraining tokens in percent, mean over sizes, "
            "with 90% bootstrap intervals.",
            markdown(["method", "task", *(factor.name for factor in PRETRAININGS)], rows),
        ]
    )


def show_sizes(cells: Sequence[RunSpec]) -> str:
    """Losses up to the largest size, and the change per doubling from each size to the next."""
    rows = []
    for method, task in _groups(cells):
        for curve in by_data(cells, method, task, MEASURE):
            steps = [per_doubling([[one, other]])[0] for one, other in pairwise(sorted(curve))]
            losses = ", ".join(f"{size:,.0f}: {loss:.3f}" for size, loss in sorted(curve))
            rows.append([method, task, losses, ", ".join(f"{100 * step:+.1f}" for step in steps)])
    header = ["method", "task", "test loss by examples seen", "per doubling from size to size, %"]
    return markdown(header, rows) if rows else "Not run yet."


def show_architectures(cells: Sequence[RunSpec]) -> str:
    """The T5 beside the decoder with as much pretraining: effects of data and of PEFT size, and losses."""
    models = {model: [cell for cell in cells if cell.model == model] for model in (DECODER, ENCODER_DECODER)}
    if not all(models.values()):
        return "Not run yet."
    decoder, t5 = (_losses(chosen_pipelines(of)) for of in models.values())
    rows = []
    for method, task in _groups(models[ENCODER_DECODER]):
        row = [method, task]
        for of in models.values():
            row.append(_change(by_data(of, method, task, MEASURE)))
            row.append(_change(by_factor(of, PEFT, method, task, MEASURE)))
        by_size = [
            [loss for key, loss in sorted(of.items()) if key[:2] == (method, task)] for of in (t5, decoder)
        ]
        ratios = [one / other for one, other in zip(*by_size, strict=True)]
        rows.append([*row, ", ".join(f"{ratio:.2f}" for ratio in ratios)])
    names = [
        "decoder: data",
        "decoder: PEFT size",
        "T5: data",
        "T5: PEFT size",
        "loss of T5 / decoder, by size",
    ]
    return "\n\n".join(
        [
            "Change of the test loss per doubling in percent, with 90% bootstrap intervals over groups of "
            f"runs that differ in nothing else. The decoder is {DECODER}. Tokenizers are the same.",
            markdown(["method", "task", *names], rows),
        ]
    )


if __name__ == "__main__":
    main()
