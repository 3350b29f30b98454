"""Makes a page with the figures of docs/comparing.md from the results of ``comparison.py``.

It names parts without a result. Every section gives the date, machine and command of the measurement.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunecast.store import open_for_reading
from tunecast_benchmarks.parts import PARTS, Part, Result

REFERENCES = ("transfer",)
"""Strategies for paired comparisons with all others."""


def page(folder: Path) -> Iterator[str]:
    """Paragraphs of the page.

    Args:
        folder: Where ``comparison.py`` keeps its results.
    """
    yield "# Figures of the comparison"
    yield "Made by `make comparison`; [comparing.md](comparing.md) explains them."
    yield shipped_runs()
    results = {name: Result.read(folder, name) for name in PARTS}
    if missing := [f"`{name}`" for name, result in results.items() if result is None]:
        yield f"Not measured: {', '.join(missing)}."
    for name, result in results.items():
        if result is not None:
            yield from section(PARTS[name], result)


def shipped_runs() -> str:
    """How many runs are shipped, by base model."""
    with open_for_reading(None) as store:
        counts = Counter(run.model for run in store.summaries())
    listed = ", ".join(f"{count:,} of {model}" for model, count in counts.most_common())
    return f"The package now ships {counts.total():,} runs: {listed}."


def section(part: Part, result: Result) -> Iterator[str]:
    """Paragraphs of one part.

    Args:
        part: The part.
        result: Its result.
    """
    yield f"## {part.title}"
    carried = f" (commit {result.carried} gives the same)" if result.carried else ""
    yield (
        f"Measured on {result.date} at commit {result.commit}{carried} on {result.machine}, "
        f"in {result.seconds:,.0f} s: `{result.command}`"
    )
    if not result.is_current(part):
        yield "**Out of date**: its runs, prior or code have changed since the measurement."
    if result.is_missed:
        yield "**It misses a limit of its own**, which the last line names."
    if not part.is_json:
        yield f"```\n{result.output.strip()}\n```"
        return
    try:
        yield from list(comparison(json.loads(result.output)))
    except (LookupError, TypeError, ValueError):  # printed by another version
        yield f"Its output cannot be read: measure `{part.name}` again."


def comparison(found: dict[str, Any]) -> Iterator[str]:
    """Tables and sentences of one comparison, from the JSON of ``tunecast compare``."""
    strategies: dict[str, Any] = found["strategies"]
    budgets = list(next(iter(strategies.values()))["mean_rank"])
    replays = [(case["model"], case["full_length_tokens"]) for case in found["cases"]]
    models = ", ".join(f"{model} at {length:,} tokens" for model, length in dict.fromkeys(replays))
    yield f"{found['header']} Replayed: {models}."
    yield (
        "Mean normalised regret on the test split in percent, its 95% interval over families of tasks, and "
        "mean rank, by budget in baseline trials:"
    )
    ordered = sorted(strategies, key=lambda name: strategies[name]["normalised_regret"][budgets[-1]])
    yield _table(
        ["strategy", *budgets],
        ([f"`{name}`", *(_regret(strategies[name], budget) for budget in budgets)] for name in ordered),
    )
    for reference in REFERENCES:
        if reference in strategies and len(strategies) > 1:
            yield (
                f"Paired differences of regret in percent, with 95% intervals; below zero `{reference}` is "
                "better, in bold where the interval excludes zero:"
            )
            others = [name for name in ordered if name != reference]
            yield _table(
                [f"`{reference}` minus", *budgets],
                (
                    [f"`{name}`", *(_difference(found["pairs"][b], reference, name) for b in budgets)]
                    for name in others
                ),
            )
    yield "\n".join(f"- {sentence}" for sentence in (*_libraries(found), *found["sentences"]))


def _libraries(found: dict[str, Any]) -> Iterator[str]:
    """Versions of rivals, and how often each was asked."""
    for name, told in found["strategies"].items():
        if "version" in told:
            distance = told["mean_distance"]
            apart = "" if distance is None else f", mean distance of candidates {distance:.2f}"
            yield f"`{name}`: {told['version']}, asked {told['library_asks']:,} times{apart}."


def _regret(told: dict[str, Any], budget: str) -> str:
    mean, low, high = (100 * told[name][budget] for name in ("normalised_regret", "low", "high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}] ({told['mean_rank'][budget]:.1f})"


def _difference(pairs: Sequence[dict[str, Any]], reference: str, other: str) -> str:
    """The regret of the reference minus the other's; a pair's difference is second minus first."""
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {reference, other})
    sign = -100.0 if pair["first"] == reference else 100.0
    low, high = sorted(sign * pair[name] for name in ("low", "high"))
    text = f"{sign * pair['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
