"""Measures what finetuning on one task does to others: by method, rank and learning rate.

    python benchmarks/forgetting.py MODEL --tasks FOLDER [--seeds 3] [--page docs/forgetting.md]

Every way is trained on each of five tasks alone, on 160 examples that the seed draws, for two passes. Then
the loss on the test examples of all five is measured, of the other four without and with five demonstrations
from their training data. Results go to benchmarks/results/forgetting.jsonl, one line for each run; a second
call goes on from there. Arrays are small: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import spearmanr

from tunecast.data import EncodedExample
from tunecast.data.encode import IGNORED
from tunecast.methods import BASELINE, get_method
from tunecast.methods.rates import adapter_rate
from tunecast.progress import Silent
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.distillation import demonstrated
from tunecast.training.losses.labels import completion_ids
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec
from tunecast_benchmarks.page_figures import replace_figures

RESULTS = Path(__file__).parent / "results" / "forgetting.jsonl"
TASKS = ("cola", "tweet_emotion", "e2e_nlg", "multi30k_de_en", "atis_sql")
EXAMPLES = 160
PASSES = 2
BATCH = 8
TESTED = 16
"""Test examples of each task."""
SHOTS = (0, 5)
ROOM = 64
"""Positions that are kept free for virtual tokens."""


@dataclass(frozen=True)
class Way:
    """A method, its rank (0 without one), and its learning rate as a multiple of the method's usual one."""

    method: str
    rank: int = 0
    rate: float = 1.0


WAYS = (
    *(Way("full"), Way("lora", 16), Way("prompt_tuning")),
    *(Way("lora", 4), Way("lora", 64), Way("full", rate=0.3), Way("full", rate=3.0)),
    *(Way("lora", 16, 0.3), Way("lora", 16, 3.0), Way("prompt_tuning", rate=10.0)),
)
"""The first three are run on all seeds before the others, which vary rank and rate."""
USUAL = 3


@dataclass(frozen=True)
class Cell:
    """One run: a way, trained on a task with a seed."""

    model: str
    task: str
    way: Way
    seed: int


Changes = Mapping[str, Sequence[float]]
"""Changes of the loss in percent of the base model's by task: one for the task itself, else by shots."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tasks", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(TASKS), help="tasks to train on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = read(chosen.results)
    todo = [cell for cell in cells(Path(chosen.model).name, chosen.only, chosen.seeds) if cell not in known]
    studies: dict[str, Study] = {}
    prepared = {name: prepare(chosen.model, chosen.tasks / name) for name in TASKS} if todo else {}
    for cell in todo:
        if cell.task not in studies:
            studies[cell.task] = Study(prepared, cell.task)
        known[cell] = studies[cell.task].run(cell)
        with chosen.results.open("a") as stream:
            stream.write(json.dumps(asdict(cell) | {"changes": known[cell]}) + "\n")
        print(cell, known[cell], flush=True)
    if chosen.page:
        replace_figures(chosen.page, show(known))


def cells(model: str, tasks: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Name the runs: the usual ways on all seeds and tasks first."""
    for ways in (WAYS[:USUAL], WAYS[USUAL:]):
        for seed in range(seeds):
            for task in tasks:
                for way in ways:
                    yield Cell(model, task, way, seed)


def read(file: Path) -> dict[Cell, Changes]:
    """Read the results of earlier calls."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        values = json.loads(line)
        changes = values.pop("changes")
        found[Cell(**values | {"way": Way(**values["way"])})] = changes
    return found


def prepare(model: str, folder: Path) -> TrainingTask:
    """Read and encode a task, and choose its test examples."""
    settings = SessionSettings(model, str(folder), objective="loss", test_examples=TESTED, threads=1)
    task = prepare_task(settings, Silent()).training_task
    return replace(task, subset=task.validation[:8], validation=task.validation[:8])


class Study:
    """A task to train on, and the test examples of all tasks."""

    def __init__(self, prepared: Mapping[str, TrainingTask], name: str) -> None:
        self.parts: list[tuple[str, list[EncodedExample]]] = [(name, list(prepared[name].test))]
        for other, task in prepared.items():
            if other != name:
                self.parts += [(other, [few_shot(one, task, shots) for one in task.test]) for shots in SHOTS]
        guard = tuple(example for _, part in self.parts for example in part)
        self.task = replace(prepared[name], guard=guard)
        self.runner = Runner(self.task)
        self.base = self._losses(None, 0)

    def run(self, cell: Cell) -> dict[str, list[float]]:
        """Train, and return the changes of the loss in percent by task."""
        pipeline = pipeline_of(cell.way, self.task.facts)
        spec = TrialSpec("study", pipeline, cell.seed, 1, EXAMPLES, "")
        tokens = sum(example.tokens for example in self.task.training_examples(spec))
        with TemporaryDirectory() as folder:
            spec = replace(spec, full_length_tokens=PASSES * tokens, folder=folder, halvings=())
            end = self.task.plan(spec).grid[-1]
            self.runner.advance(spec, 0, end)
            losses = self._losses(spec, end)
        found: dict[str, list[float]] = {}
        for (task, _), loss, base in zip(self.parts, losses, self.base, strict=True):
            found.setdefault(task, []).append(100 * (loss - base) / base)
        return found

    def _losses(self, spec: TrialSpec | None, step: int) -> list[float]:
        measured = self.runner.score(spec, step, "guard").measured
        losses, start = [], 0
        for _, part in self.parts:
            nats = measured[start : start + len(part)].sum()
            start += len(part)
            losses.append(float(nats) / sum(example.label_tokens for example in part))
        return losses


def few_shot(example: EncodedExample, task: TrainingTask, shots: int) -> EncodedExample:
    """Put training examples before an example, as many as the context holds; they are not scored."""
    answer = completion_ids(example)
    room = task.facts.context and task.facts.context - len(answer) - ROOM
    prompt = demonstrated(example, task.train[:shots], room)
    labels = (*[IGNORED] * len(prompt), *answer)
    return replace(example, input_ids=(*prompt, *answer), labels=labels)


def pipeline_of(way: Way, facts: ModelFacts) -> Pipeline:
    """Build the pipeline of a way: the baseline's settings, batches of 8, and the way's learning rate."""
    method = get_method(way.method)
    usual = method.fixed_rate or method.rate_multiple * adapter_rate(facts)
    changed: dict[str, Scalar] = {
        "learning_rate": float(f"{way.rate * usual:.3g}"),
        "per_device_train_batch_size": BATCH,
    }
    if way.rank:
        changed["lora_r"] = way.rank
    if way.method == "prompt_tuning":
        changed |= {"num_virtual_tokens": 20, "prompt_tuning_init": "vocabulary"}
    kept = {
        name: value
        for name, value in BASELINE.hyperparameters.items()
        if way.rank or not name.startswith(("lora_", "use_", "init_lora", "target_"))
    }
    return Pipeline(way.method, {**kept, **changed})


def show(known: Mapping[Cell, Changes]) -> str:
    """Write one table for each model: mean and standard deviation over runs, in percent."""
    lines, run = [], {(cell.model, cell.way) for cell in known}
    for model in dict.fromkeys(cell.model for cell in known):
        lines += [
            f"### {model}",
            "",
            "| method | rank | rate | own task | others, 0 shots | others, 5 shots | worse at 0 | runs |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(way, known, model) for way in WAYS if (model, way) in run),
            "",
            foreseen({cell: changes for cell, changes in known.items() if cell.model == model}),
            "",
        ]
    return "\n".join(lines)


def foreseen(known: Mapping[Cell, Changes]) -> str:
    """Say how well the runs of other tasks tell the changes of a task's runs, by their way alone."""
    tasks = sorted({cell.task for cell in known})
    if len(tasks) < 2 or len({cell.way for cell in known}) < 2:
        return "Too few tasks or ways to predict one from others."
    sentences = []
    for place, shots in enumerate(SHOTS):
        mean = {
            cell: float(np.mean([both[place] for task, both in changes.items() if task != cell.task]))
            for cell, changes in known.items()
        }
        ranks, errors, usual = [], [], []
        for task in tasks:
            own = [cell for cell in known if cell.task == task]
            others = [cell for cell in known if cell.task != task]
            told = [np.mean([mean[one] for one in others if one.way == cell.way]) for cell in own]
            truth = np.array([mean[cell] for cell in own])
            ranks.append(float(spearmanr(told, truth).statistic))
            errors.append(np.abs(truth - told).mean())
            usual.append(np.abs(truth - np.mean([mean[one] for one in others])).mean())
        sentences.append(
            f"With {shots} demonstrations, a way's mean on the other tasks orders the runs of a task with a "
            f"rank correlation of {np.mean(ranks):.2f} on average ({min(ranks):.2f} at least). It is off by "
            f"{np.mean(errors):.0f} points, and the mean of all ways by {np.mean(usual):.0f}."
        )
    return " ".join(sentences)


def _row(way: Way, known: Mapping[Cell, Changes], model: str) -> str:
    own, others = [], []
    for cell, changes in known.items():
        if (cell.way, cell.model) == (way, model):
            own.append(changes[cell.task][0])
            others.append([list(both) for task, both in changes.items() if task != cell.task])
    each = np.array(others)  # (runs, other tasks, shots)
    means = each.mean(axis=1)
    worse = f"{100 * np.mean(each[:, :, 0] > 0):.0f}%"
    figures = [_spread(np.array(own)), _spread(means[:, 0]), _spread(means[:, 1]), worse, str(len(own))]
    return f"| {way.method} | {way.rank or '-'} | {way.rate:g} | " + " | ".join(figures) + " |"


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():+.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
