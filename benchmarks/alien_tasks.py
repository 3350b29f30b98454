"""Makes tasks that no prior can know from real ones, and tests the guard of ``transfer`` on them.

    python benchmarks/alien_tasks.py make --tasks FOLDER --output ALIENS
    tunecast collect --plan benchmarks/alien_tasks.yaml --root aliens=ALIENS --root models=MODELS --store URL
    python benchmarks/alien_tasks.py judge --store URL --aliens ALIENS --tasks FOLDER [--known URL]

``judge`` prints on how many made-up tasks the guard fires, and on how many real tasks that were left out of
the prior. It also prints the mean regrets of ``transfer`` and ``asha``, and the paired
difference of the last two. No strategy knows the source of a made-up task: each is judged with runs of other
families of datasets, and with a prior that was trained on these runs and is kept. Only the store's runs on
the present tasks of ALIENS count. Runs on real tasks are the shipped ones, or those of ``--known``.

The guard fires on a task if the task counts as new before anything runs, or if the prior is dropped within
the budget with more than half of the seeds. The exit status is 1 if the guard fires on fewer than eight in
ten made-up tasks or on more than one in ten real ones. It is also 1 if the mean regret of ``transfer`` on
made-up tasks is above that of ``asha`` at any budget.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import random
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunecast import data
from tunecast.data.dependence import dependence
from tunecast.data.meta_features import DEPENDENCE
from tunecast.errors import DataError, OutputError, StoreError, report_user_errors
from tunecast.predictor import Prior
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Run, stable_hash
from tunecast.replay.cases import Case, Clock, cases_of, on_clock
from tunecast.replay.comparing import BUDGETS, compare_strategies, draw
from tunecast.replay.folds import Fold, context_of
from tunecast.replay.intervals import cluster_weights
from tunecast.replay.machine import replay
from tunecast.replay.priors import kept_prior
from tunecast.search import History, Remaining
from tunecast.search.task_predictor import TaskPredictor
from tunecast.search.transfer import transfer
from tunecast.store import open_for_reading
from tunecast_benchmarks.limits import verdict
from tunecast_benchmarks.provenance import file_hash
from tunecast_benchmarks.statistics import paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, str]
PREFIX = "alien_"
NOTE = "made-of"
"""File beside the made-up tasks that records their sources."""
CYRILLIC = str.maketrans(string.ascii_lowercase, "абцдефгхийклмнопярстувшызъ")
BUDGET = 8.0
SEEDS = 5
STRATEGIES = ("transfer", "asha", "random")
MIN_MADE_UP = 0.8
"""Share of the made-up tasks on which the guard has to fire."""
MAX_REAL = 0.1
"""Share of the real tasks on which the guard may fire."""


def _shuffled(rows: list[Row], draw: random.Random) -> list[Row]:
    """Completions that belong to other prompts."""
    completions = [row["completion"] for row in rows]
    draw.shuffle(completions)
    return [{**row, "completion": text} for row, text in zip(rows, completions, strict=True)]


def _random_strings(rows: list[Row], draw: random.Random) -> list[Row]:
    """Completions of random letters with the length of the real ones."""
    letters = string.ascii_letters + string.digits
    return [{**row, "completion": "".join(draw.choices(letters, k=len(row["completion"])))} for row in rows]


def _of(change: Callable[[str], str], *, prompts: bool) -> Callable[[list[Row], random.Random], list[Row]]:
    """Change every completion and every prompt."""

    def changed(rows: list[Row], draw: random.Random) -> list[Row]:
        return [
            {
                "prompt": change(row["prompt"]) if prompts else row["prompt"],
                "completion": change(row["completion"]),
            }
            for row in rows
        ]

    return changed


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _reversed(text: str) -> str:
    return text[::-1]


def _in_cyrillic(text: str) -> str:
    return text.lower().translate(CYRILLIC)


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


ALIENS: dict[str, tuple[str, Callable[[list[Row], random.Random], list[Row]]]] = {
    "shuffled_intents": ("banking77", _shuffled),
    "shuffled_sentences": ("multi30k_de_en", _shuffled),
    "shuffled_queries": ("geo_sql", _shuffled),
    "random_labels": ("tweet_emotion", _random_strings),
    "random_sentences": ("multi30k_en_de", _random_strings),
    "base64_answers": ("medquad_qtype", _of(_base64, prompts=False)),
    "base64_dialogues": ("clinc_intents", _of(_base64, prompts=True)),
    "cyrillic_sentences": ("multi30k_fr_en", _of(_in_cyrillic, prompts=True)),
    "mirrored_queries": ("scholar_sql", _of(_reversed, prompts=True)),
    "rot13_answers": ("medquad_answers", _of(_rot13, prompts=True)),
}
"""By name: the source task and the change of its rows."""


def make(tasks: Path, output: Path, seed: int = 0) -> None:
    """Write every made-up task as a folder of splits; write all of them or none.

    Existing tasks stay, unless a task is missing, or this program, the seed or a real task has changed. Then
    all tasks are made again.

    Args:
        tasks: The folder of the real ones.
        output: The folder that is made.
        seed: Seed of whatever is random.

    Raises:
        DataError: A real task is not there.
        OutputError: The folder is there, with something else in it.
    """
    made_of = _made_of(tasks, seed)
    if output.exists():
        _check_ours(output)
        if not _lacking(output) and _noted(output) == made_of:
            return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as staging:
        whole = Path(staging) / "whole"
        for name in ALIENS:
            _make_one(name, tasks, whole / f"{PREFIX}{name}", seed)
        (whole / NOTE).write_text(made_of, encoding="utf-8")
        if output.exists():
            output.rename(Path(staging) / "outdated")
        whole.rename(output)


def _made_of(tasks: Path, seed: int) -> str:
    """A hash of this program, the seed and the source tasks."""
    files = [file for source, _ in ALIENS.values() for file in _splits(tasks, source)]
    hashes = [(file.parent.name, file.name, file_hash(file)) for file in files]
    return stable_hash([file_hash(Path(__file__)), seed, hashes], 16)


def _noted(output: Path) -> str:
    """The recorded sources of a folder of made-up tasks; empty if none are recorded."""
    note = output / NOTE
    return note.read_text(encoding="utf-8") if note.is_file() else ""


def _check_ours(output: Path) -> None:
    """Refuse a folder that holds anything but made-up tasks, because its content would be lost.

    Raises:
        OutputError: The folder holds something else, or the path is no folder.
    """
    if not output.is_dir():
        raise OutputError(f"--output {output} is not a folder.", "Name another.")
    others = [one.name for one in output.iterdir() if one.name != NOTE and not one.name.startswith(PREFIX)]
    if others:
        raise OutputError(
            f"--output {output} holds {min(others)}, which is not a made-up task.", "Name another folder."
        )


def _splits(tasks: Path, source: str) -> list[Path]:
    """Files of a real task.

    Raises:
        DataError: There are none.
    """
    if files := sorted((tasks / source).glob("*.jsonl")):
        return files
    raise DataError(f"--tasks {tasks} has no task {source}.", "Name the folder of the real tasks.")


def _names() -> list[str]:
    """Names of all made-up tasks."""
    return [f"{PREFIX}{name}" for name in ALIENS]


def _lacking(output: Path) -> list[str]:
    """Names of the made-up tasks that a folder does not hold."""
    return [name for name in _names() if not any((output / name).glob("*.jsonl"))]


def _make_one(name: str, tasks: Path, folder: Path, seed: int) -> None:
    """Write the splits of one made-up task."""
    source, change = ALIENS[name]
    folder.mkdir(parents=True)
    draw = random.Random(f"{seed} {name}")
    for file in _splits(tasks, source):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        plain = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in change(plain, draw))
        (folder / file.name).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Doubts:
    """The guard's results on a task.

    Args:
        is_new: Whether the task is unlike all known tasks.
        left_aside: Share of the seeds with which the prior was dropped within the budget.
    """

    is_new: bool
    left_aside: float

    @property
    def fires(self) -> bool:
        """Whether the guard fires, before anything runs or with more than half of the seeds."""
        return self.is_new or self.left_aside > 0.5


def diagnostics(case: Case, runs: Sequence[Run], prior_of: Callable[[Sequence[Run]], Prior]) -> Doubts:
    """Replay ``transfer`` on a task.

    Args:
        case: The task.
        runs: All recorded runs.
        prior_of: Gives the prior from the runs on other tasks.
    """
    context = context_of(
        case, runs, Fold.TASK, dataset_families(run.task.dataset for run in (*runs, case.zero_shot))
    )
    prior = prior_of(context.runs)
    predictor, strategy = TaskPredictor(context, prior), transfer(replace(context, prior=prior))
    left_aside = []
    for seed in range(SEEDS):
        seen: list[bool] = []

        def watched(history: History, remaining: Remaining, seen: list[bool] = seen) -> int | None:
            seen.append(not predictor.predict(history).is_reliable)
            return strategy(history, remaining)

        replay(case, draw(case, seed), watched, BUDGET * case.baseline_seconds)
        left_aside.append(any(seen))
    return Doubts(predictor.is_new, float(np.mean(left_aside)))


def described_anew(case: Case, folder: Path) -> Case:
    """A case with the present description of its dataset, if the dataset is there."""
    found = dependence(data.read(str(folder)).train) if folder.is_dir() else None
    if found is None:
        return case
    features = {**case.dataset.meta_features, DEPENDENCE: found}
    return replace(case, dataset=replace(case.dataset, meta_features=features))


def judge(store: str, aliens: Path, tasks: Path, known_store: str | None = None) -> int:
    """Print the rates of the guard, and regrets on made-up tasks.

    Args:
        store: Where runs on made-up tasks are recorded.
        aliens: The folder of the made-up tasks.
        tasks: The folder of the real ones. They are described again too, so that the guard knows as much of
            them.
        known_store: Where runs on real tasks are recorded; None for those that are shipped.

    Returns:
        The exit status: 1 if the guard misses a limit.

    Raises:
        StoreError: A made-up task is missing, has too few runs to be replayed, or has several cases.
    """
    strange = _made_up_cases(store, aliens)
    with open_for_reading(known_store) as opened:
        known = [run for run in on_clock(opened.runs(), Clock.CPU) if not run.task.dataset.startswith(PREFIX)]
    lengths = {(case.model.name, case.full_length_tokens) for case in strange}
    real = [
        described_anew(case, tasks / case.task)
        for case in cases_of(known)[0]
        if (case.model.name, case.full_length_tokens) in lengths
    ]
    made_up = [diagnostics(case, unrelated(case.task, known), kept_prior) for case in strange]
    _print_diagnostics("made up", strange, made_up)
    left_out = [diagnostics(case, known, kept_prior) for case in real]
    _print_diagnostics("real, left out", real, left_out)
    names = tuple(case.task for case in strange)
    regrets = np.concatenate([_regrets(case, known) for case in strange], axis=1)
    return verdict([*_wrong_rates(made_up, left_out), *_print_regrets(names, regrets)])


def _made_up_cases(store: str, aliens: Path) -> list[Case]:
    """Cases of the present made-up tasks, described again; runs on earlier versions are left out.

    Raises:
        StoreError: A task is missing or has too few runs to be replayed, so that rates would not cover all
            tasks. Or a task has several cases and would count twice.
    """
    if lacking := _lacking(aliens):
        raise StoreError(f"--aliens {aliens} lacks {', '.join(lacking)}.", "Make them: alien_tasks.py make.")
    now = {name: data.read(str(aliens / name)).fingerprint for name in _names()}
    with open_for_reading(store) as opened:
        cases = cases_of(on_clock(opened.runs(), Clock.CPU))[0]
    strange = [case for case in cases if case.dataset.fingerprint == now.get(case.task)]
    there = Counter(case.task for case in strange)
    if lacking := [name for name in now if name not in there]:
        raise StoreError(
            f"--store lacks runs on {', '.join(lacking)} as they are now.",
            "Collect them: tunecast collect --plan benchmarks/alien_tasks.yaml goes on where it ended.",
        )
    task, number = there.most_common(1)[0]
    if number > 1:
        raise StoreError(
            f"--store has runs on {task} on several base models, devices or full lengths.",
            "Name a store with runs of alien_tasks.yaml only.",
        )
    return [described_anew(case, aliens / case.task) for case in strange]


def _print_diagnostics(words: str, cases: Sequence[Case], rates: Sequence[Doubts]) -> None:
    fires = sum(rate.fires for rate in rates)
    new = sum(rate.is_new for rate in rates)
    aside = sum(rate.left_aside > 0.5 for rate in rates)
    print(
        f"{words}: the guard fires on {fires} of {len(rates)} tasks; {new} count as new, and the prior is "
        f"left aside on {aside}"
    )
    each = (
        f"{case.task} {'new ' * rate.is_new}{rate.left_aside:.0%}"
        for case, rate in zip(cases, rates, strict=True)
    )
    print(f"  {', '.join(each)}", flush=True)


def _wrong_rates(made_up: Sequence[Doubts], left_out: Sequence[Doubts]) -> list[str]:
    """The limits that the guard's rates miss."""
    caught, disturbed = (sum(rate.fires for rate in rates) for rates in (made_up, left_out))
    missed = []
    if caught < MIN_MADE_UP * len(made_up):
        missed.append(f"fires on {caught} of {len(made_up)} made-up tasks, {MIN_MADE_UP:.0%} wanted")
    if disturbed > MAX_REAL * len(left_out):
        missed.append(f"fires on {disturbed} of {len(left_out)} real tasks, {MAX_REAL:.0%} allowed")
    return missed


def _print_regrets(tasks: Sequence[str], regrets: NDArray[np.float64]) -> list[str]:
    """Print mean regrets, and the difference between ``transfer`` and ``asha``.

    Args:
        tasks: Names of made-up tasks.
        regrets: Normalised regrets, shape (strategies, tasks, budgets).

    Returns:
        A phrase for each budget at which ``transfer`` is worse on average.
    """
    print("\nmean normalised regret in percent on made-up tasks, by budget in baseline trials", BUDGETS)
    for name, by_budget in zip(STRATEGIES, 100 * regrets.mean(axis=1), strict=True):
        print(f"  {name:10} " + " ".join(f"{regret:7.2f}" for regret in by_budget))
    family_of = dataset_families(source for source, _ in ALIENS.values())
    weights = cluster_weights([family_of[ALIENS[task.removeprefix(PREFIX)][0]] for task in tasks])
    # A pair's difference is the second's regret minus the first's.
    compared = [STRATEGIES.index(name) for name in ("asha", "transfer")]
    worse = []
    print("transfer minus asha, with 95% intervals over families of what the tasks were made of")
    for place, budget in enumerate(BUDGETS):
        (pair,) = paired(("asha", "transfer"), regrets[compared, :, place], weights)
        mean, low, high = (100 * value for value in (pair.difference, pair.low, pair.high))
        print(f"  {budget:4g} {mean:+7.2f} [{low:+.2f}, {high:+.2f}]")
        if mean > 0:
            worse.append(f"{budget:g}")
    return [f"regret above asha's at {', '.join(worse)} baseline trials"] if worse else []


def unrelated(task: str, runs: Sequence[Run]) -> list[Run]:
    """Runs on real tasks, without the family of a made-up task's source.

    Args:
        task: Name of the made-up task.
        runs: Runs on any tasks.
    """
    source, _ = ALIENS[task.removeprefix(PREFIX)]
    real = [run for run in runs if not run.task.dataset.startswith(PREFIX)]
    family_of = dataset_families([source, *(run.task.dataset for run in real)])
    return [run for run in real if family_of[run.task.dataset] != family_of[source]]


def _regrets(case: Case, known: Sequence[Run]) -> NDArray[np.float64]:
    """Mean normalised regrets on a made-up task, shape (strategies, 1, budgets)."""
    others = unrelated(case.task, known)
    return compare_strategies([case], others, STRATEGIES, seeds=SEEDS, thinking_seconds=0.0).by_task()


def main() -> None:
    """Make the tasks, or judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--tasks", type=Path, required=True)
    making.add_argument("--output", type=Path, required=True)
    judging = commands.add_parser("judge")
    judging.add_argument("--store", required=True)
    judging.add_argument("--aliens", type=Path, required=True, help="the folder of the made-up tasks")
    judging.add_argument("--tasks", type=Path, required=True, help="the folder of the real tasks")
    judging.add_argument("--known", help="store of runs on real tasks; default: what is shipped")
    arguments = parser.parse_args()
    with report_user_errors():
        if arguments.command == "make":
            make(arguments.tasks, arguments.output)
        else:
            sys.exit(judge(arguments.store, arguments.aliens, arguments.tasks, arguments.known))


if __name__ == "__main__":
    main()
