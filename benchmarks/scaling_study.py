"""A small version of the study of arXiv 2402.17193: tests its claims on the runs of ``plans/study.yaml``.

    python benchmarks/scaling_study.py [--store URL] [--output docs/scaling-study.md]

Prints every figure of the study as Markdown, from the runs in the store, or from those that are shipped.
Incomplete curves and families are left out and counted. With ``--output``, the text between that file's two
markers is replaced. All fits, posteriors and crossings are those of ``tunecast.scaling``. Arrays are
small: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from study_design import (
    BODY,
    COMPARED,
    EQUAL,
    FACTORS,
    MEASURES,
    METHODS,
    MODEL,
    PEFT,
    PRETRAINING,
    UNANNEALED,
    RunSpec,
    chosen_pipelines,
    complete_curves,
    curve_key,
    read_cells,
)
from study_findings import (
    REACH,
    RIVALS,
    Backtest,
    Exponent,
    Exponents,
    backtests,
    bootstrap,
    crossings,
    measure_exponents,
)
from tunecast.arrays import Floats
from tunecast.records import Run
from tunecast.scaling import Crossing
from tunecast.store import open_for_reading
from tunecast.store.redaction import shared_session

LIKELY = 0.95


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--store", help="The store that the plan was collected into; default: what is shipped."
    )
    parser.add_argument("--session", default="study", help="Name of the collection; empty for all runs.")
    parser.add_argument("--output", type=Path, help="A Markdown file with the two markers.")
    options = parser.parse_args(arguments)
    with open_for_reading(options.store) as store:
        runs = list(store.runs())
    if options.session:  # some of the runs may come from an export
        names = (options.session, shared_session(options.session))
        runs = [run for run in runs if run.session in names]
    text = study(runs)
    if options.output is None:
        print(text)
    else:
        insert(options.output, text, "figures")


def insert(path: Path, text: str, name: str) -> None:
    """Replace the text between the markers of a name in a file."""
    opening, closing = (f"<!-- {name}: {place} -->" for place in ("begin", "end"))
    before, begin, rest = path.read_text(encoding="utf-8").partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise SystemExit(f"{path} lacks the markers {opening} and {closing}.")
    path.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}", encoding="utf-8")


def study(runs: Sequence[Run]) -> str:
    """All figures, as Markdown."""
    cells = read_cells(runs)
    complete = complete_curves(cells)
    parts = [show_runs(runs, cells, complete)]
    for measure, title in MEASURES.items():
        scores = backtests(complete, measure)
        exponents = measure_exponents(cells, measure)
        parts += [
            f"### Out of sample: {title}",
            show_backtests(scores),
            f"### Exponents: {title}",
            show_exponents(exponents),
            f"### Crossovers: {title}",
            show_winners(cells, measure),
            show_crossovers(crossings(complete, measure)),
        ]
    return "\n\n".join(parts)


def show_runs(runs: Sequence[Run], cells: Sequence[RunSpec], complete: Sequence[RunSpec]) -> str:
    """Counts of runs, cells and curves."""
    outcomes = Counter(run.outcome.value for run in runs)
    curves, whole = (len({curve_key(cell) for cell in part}) for part in (cells, complete))
    tasks = sorted({cell.task for cell in cells})
    models = sorted({(c.parameters, c.pretraining, c.model, c.body) for c in cells})
    rows = []
    for parameters, pretraining, model, body in models:
        counts = [f"{sum(c.task == task and c.model == model for c in cells)}" for task in tasks]
        rows.append(
            [model, f"{parameters / 1e6:.1f}M", f"{body / 1e6:.1f}M", f"{pretraining / 1e6:.0f}M", *counts]
        )
    ends = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(outcomes.items()))
    noise = np.median([cell.noise for cell in cells]) if cells else 0.0
    sizes = "; ".join(f"{task}: {_sizes(cells, task)}" for task in tasks)
    return "\n\n".join(
        [
            "### Runs",
            f"{len(runs)} runs ({ends}), {len(cells)} distinct cells with a test loss. Of {curves} curves "
            f"over data size {whole} are complete; {curves - whole} are left out of all laws below. Unique "
            f"examples that runs saw: {sizes}. Half the 95% interval of one test loss is {noise:.1%} of it "
            "(median).",
            markdown(["model", "parameters", "without embeddings", "pretraining tokens", *tasks], rows),
        ]
    )


def _sizes(cells: Sequence[RunSpec], task: str) -> str:
    spans: dict[int, list[int]] = {}
    for cell in cells:
        if cell.task == task:
            spans.setdefault(cell.planned, []).append(cell.data_size)
    shown = [(min(seen), max(seen)) for _, seen in sorted(spans.items())]
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in shown)


def show_backtests(scores: Sequence[Backtest]) -> str:
    """Errors by factor and way of holding out, errors by group, and a verdict."""
    if not scores:
        return "No family of three values of X is complete yet."
    ways = list(dict.fromkeys((score.factor, score.held_out) for score in scores))
    first = [_error_row([s for s in scores if (s.factor, s.held_out) == way], way) for way in ways]
    groups = list(dict.fromkeys((score.method, score.task) for score in scores))
    second = [_error_row([s for s in scores if (s.method, s.task) == group], group) for group in groups]
    laws = [*RIVALS, "joint below additive in"]
    return "\n\n".join(
        [
            "Mean absolute error of log loss at held-out points; *nearest* repeats the nearest measured "
            "loss.",
            markdown(["X", "held out", "groups", *laws], first),
            markdown(["method", "task", "cases", *laws], second),
            verdict_on_laws(scores),
        ]
    )


def _error_row(scores: Sequence[Backtest], names: tuple[str, str]) -> list[str]:
    means = [f"{np.mean([score.errors[law] for score in scores]):.3f}" for law in RIVALS]
    wins = sum(score.errors["joint"] < score.errors["additive"] for score in scores)
    return [*names, str(len(scores)), *means, f"{wins} of {len(scores)}"]


def verdict_on_laws(scores: Sequence[Backtest]) -> str:
    """Compare the joint law with each rival over (method, task) groups, with a bootstrap over groups."""
    groups = list(dict.fromkeys((score.method, score.task) for score in scores))
    sentences = []
    for rival in RIVALS[1:]:
        gains = np.array(
            [
                np.mean([s.errors[rival] - s.errors["joint"] for s in scores if (s.method, s.task) == group])
                for group in groups
            ]
        )
        low, high = bootstrap(gains)
        better = int(np.sum(gains > 0))
        if low > 0:
            verdict = "the multiplicative law is better"
        elif high < 0:
            verdict = "the multiplicative law is worse"
        else:
            verdict = "no clear difference"
        sentences.append(
            f"Against {rival}: the multiplicative law has the smaller mean error in {better} of "
            f"{len(groups)} (method, task) groups; the rival's error minus its own is {gains.mean():+.4f} "
            f"[{low:+.4f}, {high:+.4f}]: {verdict}."
        )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def show_exponents(exponents: Exponents) -> str:
    """Alpha and the change per doubling for each group, and verdicts."""
    groups = list(dict.fromkeys((method, task) for _, method, task in exponents))
    names = [factor.name for factor in FACTORS]
    alphas = [[*group, *(_alpha(exponents.get((name, *group))) for name in names)] for group in groups]
    changes = [
        [*group, *(_percent(exponents.get((name, *group))) for name in [*names, "data"])] for group in groups
    ]
    return "\n\n".join(
        [
            "Alpha of the multiplicative law: posterior median and 90% interval, mean over families. The "
            "prior is 0.15 [0.02, 0.94]; an equally wide interval has learned nothing.",
            markdown(["method", "task", *names], alphas),
            "Change of the loss per doubling in percent, with 90% bootstrap intervals; needs no law and no "
            "complete curves.",
            markdown(["method", "task", *names, "data"], changes),
            "\n".join(f"- {line}" for line in verdicts_on_exponents(exponents)),
        ]
    )


def _alpha(found: Exponent | None) -> str:
    if found is None or not found.draws.size:
        return "-"
    low, high = found.interval
    return f"{np.median(found.draws):.2f} [{low:.2f}, {high:.2f}]"


def _percent(found: Exponent | None) -> str:
    return "-" if found is None else percent(found.change, found.low, found.high)


def percent(change: float, low: float, high: float) -> str:
    """A relative change in percent, with its interval where there is one."""
    interval = "" if np.isnan(low) else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * change:+.1f}{interval}"


def verdicts_on_exponents(exponents: Exponents) -> list[str]:
    """The paper's comparisons, counted over groups."""
    pairs = [(MODEL, PRETRAINING), (BODY, PRETRAINING), (EQUAL, PRETRAINING), (EQUAL, UNANNEALED)]
    lines = [_compare(exponents, one.name, other.name) for one, other in pairs]
    lines += [_compare(exponents, name, PEFT.name) for name in (EQUAL.name, PRETRAINING.name)]
    for name in [factor.name for factor in FACTORS] + ["data"]:
        for method in METHODS:
            found = [e for (factor, of, _), e in exponents.items() if (factor, of) == (name, method)]
            if found:
                falls, rises = sum(e.high < 0 for e in found), sum(e.low > 0 for e in found)
                lines.append(
                    f"A doubling of {name} changes the loss of {method} by "
                    f"{100 * np.mean([e.change for e in found]):+.1f}% (mean of {len(found)} tasks): clearly "
                    f"lower in {falls}, clearly higher in {rises}."
                )
    return [line for line in lines if line]


def _compare(exponents: Exponents, one: str, other: str) -> str:
    both = [(m, t) for f, m, t in exponents if f == one and (other, m, t) in exponents]
    if not both:
        return ""
    fitted = [
        group for group in both if exponents[one, *group].draws.size and exponents[other, *group].draws.size
    ]
    shares = [_share_above(exponents[one, *group].draws, exponents[other, *group].draws) for group in fitted]
    steeper = sum(exponents[one, *group].change < exponents[other, *group].change for group in both)
    larger, clearly, clearly_not = (
        sum(share > 0.5 for share in shares),
        sum(share >= LIKELY for share in shares),
        sum(share <= 1 - LIKELY for share in shares),
    )
    return (
        f"Alpha of *{one}* is above that of *{other}* in {larger} of {len(fitted)} (method, task) groups "
        f"(clearly above in {clearly}, clearly below in {clearly_not}); "
        f"a doubling lowers the loss more in {steeper} of {len(both)}."
    )


def _share_above(first: Floats, second: Floats) -> float:
    """Share of independent draws in which the first is larger."""
    size = min(len(first), len(second))
    return float(np.mean(first[:size] > second[:size]))


def show_winners(cells: Sequence[RunSpec], measure: str) -> str:
    """Counts of the method with the lowest measured loss, by data size."""
    settings: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for cell in chosen_pipelines(cells):
        sizes = settings.setdefault((cell.task, cell.model), {})
        sizes.setdefault(cell.planned, {})[cell.method] = cell.losses[measure]
    places = {task: sorted({c.planned for c in cells if c.task == task}) for task in {c.task for c in cells}}
    counts: dict[int, Counter[str]] = {}
    for (task, _), sizes in settings.items():
        for planned, losses in sizes.items():
            place = places[task].index(planned)
            if len(losses) == len(METHODS):
                counts.setdefault(place, Counter())[min(losses, key=lambda method: losses[method])] += 1
    rows = [
        [_ordinal(place, max(map(len, places.values()))), *(str(count[m]) for m in METHODS)]
        for place, count in sorted(counts.items())
    ]
    compared = ", ".join(f"{method} {amount}" if amount else method for method, amount in COMPARED.items())
    return "\n\n".join(
        [
            f"Number of settings (task and model) in which each method had the lowest loss ({compared}).",
            markdown(["data size", *METHODS], rows),
        ]
    )


def _ordinal(place: int, count: int) -> str:
    names = {0: "smallest", count - 1: "largest"}
    return names.get(place, f"{place + 1} of {count}")


def show_crossovers(found: Mapping[str, tuple[Crossing, ...]]) -> str:
    """A cell for every pair of methods on every model and task, and counts."""
    if not found:
        return "No two methods are complete on one model yet."
    pairs: dict[tuple[str, str], dict[tuple[str, str], Crossing]] = {}
    for task, entries in found.items():
        for entry in entries:
            pair = (str(entry.first["method"]), str(entry.second["method"]))
            if METHODS.index(pair[0]) > METHODS.index(pair[1]):
                pair = pair[::-1]
            pairs.setdefault(pair, {})[task, str(entry.first["model"])] = entry
    order = sorted(pairs, key=lambda pair: (METHODS.index(pair[0]), METHODS.index(pair[1])))
    settings = sorted({setting for entries in pairs.values() for setting in entries})
    rows = [[*setting, *(_crossing(pairs[pair].get(setting)) for pair in order)] for setting in settings]
    return "\n\n".join(
        [
            "Sizes at which one method overtakes another, in unique examples with 90% intervals, up to "
            f"{REACH:g} times beyond the measured sizes; in brackets the posterior probability of a "
            "crossing.",
            markdown(["task", "model", *(f"{one} / {other}" for one, other in order)], rows),
            "\n".join(f"- {verdict_on_pair(pair, list(pairs[pair].values()))}" for pair in order),
        ]
    )


def _method(name: str) -> str:
    """The method in a root's name, ``method, model``."""
    return name.split(",")[0]


def _crossing(entry: Crossing | None) -> str:
    if entry is None:
        return "-"
    if not entry.roots:
        return f"{_winner(entry)} everywhere ({entry.probability:.0%})"
    steps = [
        f"{_method(r.better_above)} from {r.data_size:.0f} [{r.low:.0f}, {r.high:.0f}]" for r in entry.roots
    ]
    return f"{'; '.join(steps)} ({entry.probability:.0%})"


def _winner(entry: Crossing) -> str:
    """The method that is better everywhere, from the package's sentence."""
    return _method(entry.reason.partition("none in range: ")[2])


def verdict_on_pair(pair: tuple[str, str], entries: Sequence[Crossing]) -> str:
    """Counts of two methods' crossings by direction, and of winners without a crossing."""
    crossed = [entry for entry in entries if entry.roots]
    likely = sum(entry.probability >= LIKELY for entry in crossed)
    above = Counter(_method(entry.roots[-1].better_above) for entry in crossed)
    never = Counter(_winner(entry) for entry in entries if not entry.roots)
    ways = (
        ", ".join(f"{name} is better with more data in {count}" for name, count in above.most_common())
        or "none"
    )
    rest = ", ".join(f"{name} in {count}" for name, count in never.most_common()) or "none"
    return (
        f"{pair[0]} / {pair[1]}: a crossing in {len(crossed)} of {len(entries)} settings ({ways}); "
        f"{likely} with a posterior probability of at least {LIKELY:.0%}. Better everywhere in range: {rest}."
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
