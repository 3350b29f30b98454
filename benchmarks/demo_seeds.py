"""``make demo`` over several seeds, against the baseline that uses about as many seconds.

    python benchmarks/demo_seeds.py [--results FOLDER]

For each seed one session as ``make demo`` runs it, and right after it one that trains nothing but the
baseline. Its only trial is planned to end well within a budget, so that it is granted more than the
demo, to use as many seconds. What was delivered counts: the base model, the baseline or the
incumbent, whichever has the lowest validation loss. Outcomes are kept in the folder ``--results``, and are
not measured again with the same runs, prior and code.
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
"""What is compared, and how it is asked for beside model, data, budget and seed."""
WANTED_SHARE = 0.8
"""Part of the seeds on which the demo is to be below the baseline."""
LEAST_SECONDS = 0.9
"""The baseline is to use at least this part of the demo's seconds."""


@dataclass(frozen=True)
class Demo:
    """What all sessions share.

    Args:
        model: The base model.
        data: The dataset.
        budget: As on the command line, of each side.
    """

    model: str
    data: str
    budget: Mapping[str, str]

    def outcome(self, side: str, seed: int, kept: Kept, rests_on: str) -> Outcome:
        """What one session gives, if it must be by running it."""
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
    """Test losses in nats per label token by seed, and what was delivered."""
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
    """Whether what the demo delivers has a lower test loss than what the baseline's session delivers."""
    return bool(both["demo"][DELIVERED] < both["baseline"][DELIVERED])


def has_less(both: Mapping[str, Outcome]) -> bool:
    """Whether the baseline's session used clearly fewer seconds than the demo's."""
    return bool(both["baseline"]["seconds"] < LEAST_SECONDS * both["demo"]["seconds"])


def report(found: list[dict[str, Outcome]]) -> int:
    """Print the table and the verdict; the exit status."""
    below = sum(map(is_below, found))
    print(table(found))
    print(f"\nbelow on {below} of {len(found)}")
    wanted = WANTED_SHARE * len(found)
    misses = [f"below on fewer than {wanted:g} of {len(found)} seeds"] if below < wanted else []
    short = [seed for seed, both in enumerate(found) if has_less(both)]
    if short:
        misses.append(f"the baseline used less than the demo on seeds {', '.join(map(str, short))}")
    return verdict(misses)


def main() -> None:
    """Run what is missing, then print the table."""
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
