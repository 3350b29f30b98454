"""Runs ``make demo`` over several seeds, against the baseline with about as many seconds.

    python benchmarks/demo_seeds.py [--results FOLDER]

Each seed has one session as ``make demo`` runs it, and right after it a session that trains only the
baseline. The baseline's single trial is planned to end well within a budget. It is therefore granted more
than the demo, so that it uses as many seconds. The delivered model counts: the base model, the baseline or
the incumbent, whichever has the lowest validation loss. Outcomes are kept in the folder ``--results``, and
are not measured again with the same runs, prior and code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunecast_benchmarks.limits import verdict
from tunecast_benchmarks.whole_sessions import DELIVERED, INCUMBENT, Kept, Outcome, made_by, session

SIDES: Mapping[str, tuple[str, ...]] = {
    "demo": (),
    "baseline": ("--strategy", "fixed-baseline", "--no-forecast"),
}
"""The two sides, and their options besides model, data, budget and seed."""
WANTED_SHARE = 0.8
"""Share of the seeds on which the demo has to be below the baseline."""
MIN_SECONDS = 0.9
"""Share of the demo's seconds that the baseline has to use at least."""


@dataclass(frozen=True)
class Demo:
    """Settings that all sessions share.

    Args:
        model: The base model.
        data: The dataset.
        budget: As on the command line, of each side.
    """

    model: str
    data: str
    budget: Mapping[str, str]

    def outcome(self, side: str, seed: int, kept: Kept, rests_on: str) -> Outcome:
        """The outcome of one session, which runs if its outcome is not kept."""
        model, data = Path(self.model).name, Path(self.data).name
        key = f"{rests_on} {model} {data} {self.budget[side]} {side} {seed}"
        outcome = kept.get(key)
        if outcome is None:
            with tempfile.TemporaryDirectory() as folder:
                flags = {"--model": self.model, "--budget": self.budget[side], "--seed": str(seed)}
                outcome = session(Path(folder) / "out", self.data, flags, *SIDES[side])
            kept.add(key, outcome)
            print(f"{side} {seed}: {outcome}", file=sys.stderr, flush=True)
        return outcome


def measure(demo: Demo, seeds: int, kept: Kept) -> list[dict[str, Outcome]]:
    """Outcomes by side, for every seed."""
    rests_on = made_by()
    return [{side: demo.outcome(side, seed, kept, rests_on) for side in SIDES} for seed in range(seeds)]


def table(found: list[dict[str, Outcome]]) -> str:
    """Test losses in nats per label token by seed, and the delivered model."""
    lines = [
        "| seed | untouched | demo | its incumbent | delivers "
        "| baseline, as many seconds | below | seconds |",
        "|---:|---:|---:|---:|---|---:|---|---|",
    ]
    for seed, both in enumerate(found):
        demo, baseline = both["demo"], both["baseline"]
        pipeline = f" ({demo['incumbent']})" if demo["winner"] == "incumbent" else ""
        lines.append(
            f"| {seed} | {demo['zero_shot']:.4f} | {demo[DELIVERED]:.4f} | {demo[INCUMBENT]:.4f} | "
            f"{demo['winner']}{pipeline} | {baseline[DELIVERED]:.4f} | {'yes' if is_below(both) else 'no'} | "
            f"{demo['seconds']:.0f}, {baseline['seconds']:.0f} |"
        )
    return "\n".join(lines)


def is_below(both: Mapping[str, Outcome]) -> bool:
    """Whether the demo delivers a lower test loss than the baseline's session."""
    return bool(both["demo"][DELIVERED] < both["baseline"][DELIVERED])


def has_less(both: Mapping[str, Outcome]) -> bool:
    """Whether the baseline's session used clearly fewer seconds than the demo's."""
    return bool(both["baseline"]["seconds"] < MIN_SECONDS * both["demo"]["seconds"])


def report(found: list[dict[str, Outcome]]) -> int:
    """Print the table and the verdict; return the exit status."""
    below = sum(map(is_below, found))
    print(table(found))
    print(f"\nbelow on {below} of {len(found)}")
    wanted = WANTED_SHARE * len(found)
    misses = [f"below on fewer than {wanted:g} of {len(found)} seeds"] if below < wanted else []
    short = [seed for seed, both in enumerate(found) if has_less(both)]
    if short:
        misses.append(f"the baseline used fewer seconds than the demo on seeds {', '.join(map(str, short))}")
    return verdict(misses)


def main() -> None:
    """Run the missing sessions, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--baseline-budget", default="350s", help="of the baseline alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("real-sessions"), help="folder")
    chosen = parser.parse_args()
    demo = Demo(chosen.model, chosen.data, {"demo": chosen.budget, "baseline": chosen.baseline_budget})
    found = measure(demo, chosen.seeds, Kept(chosen.results / f"demo-{Path(demo.model).name}.json"))
    granted = f"{chosen.budget}, the baseline {chosen.baseline_budget}"
    print(f"{Path(demo.model).name}, {Path(demo.data).name}, {granted}: test losses\n")
    sys.exit(report(found))


if __name__ == "__main__":
    main()
