"""Measures how much of a large model's finetuning a small finetuned model that steers it replaces.

    python benchmarks/proxy_tuning.py --models FOLDER --tasks FOLDER [--page docs/proxy-tuning.md]

For each task and large model there are four rows: the large model as it is (*base*), the small model
finetuned (*expert*), the large model finetuned (*tuned*), and the large model steered by the small one
(*proxy*), with alpha chosen by the loss on validation. All models of a task are trained in full on the same
examples, 1,000 at most, once, each at the learning rate that suits its width, with one seed. The gap closed
is (base - proxy) / (base - tuned). Results go to benchmarks/results/proxy_tuning.jsonl, one line for each
row, and a second call goes on from there. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tunecast.data import encode_prompt
from tunecast.methods import BASELINE
from tunecast.models import load_tokenizer
from tunecast.models.load import quiet
from tunecast.progress import Silent
from tunecast.proxy_tuning.loading import Expert, Steering, steering_of
from tunecast.records import Pipeline
from tunecast.session.prepare import prepare_task
from tunecast.session.proxy import ALPHAS
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.finished_model import load_finished
from tunecast.training.generate import padded
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec
from tunecast_benchmarks.page_figures import replace_figures

RESULTS = Path(__file__).parent / "results" / "proxy_tuning.jsonl"
SMALL = "nano-16m"
LARGE = ("micro-16m", "mini-10m")
RATES = {"nano-16m": 3e-3, "micro-16m": 2e-3, "mini-10m": 1e-3}
"""Learning rates of full finetuning by width."""
TASKS = {"multi30k_de_en": "chrf", "banking77": "token_f1", "geo_sql": "token_f1"}
"""Each task with the metric of its generated answers."""
EXAMPLES = 1000
TESTED = 100
"""Test examples, and validation examples by which alpha is chosen."""
TIMED_TOKENS = 48


@dataclass(frozen=True)
class Cell:
    """One row: ``base``, ``expert``, ``tuned`` or ``proxy`` on a task; the expert has no large model."""

    task: str
    large: str
    way: str


@dataclass(frozen=True)
class Outcome:
    """The figures of a row.

    Args:
        loss: Test loss in nats per label token.
        metric: The task's metric of generated test answers.
        tokens_per_second: Of one answer, by processor seconds on one thread.
        alpha: The one that was chosen, of a proxy.
        by_alpha: Validation loss of every alpha, of a proxy.
    """

    loss: float
    metric: float
    tokens_per_second: float
    alpha: float | None = None
    by_alpha: dict[str, float] | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the ladder's models")
    parser.add_argument("--tasks", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--only", default="", help="one task")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = read(chosen.results)
    with TemporaryDirectory() as folder:
        for cell in cells([chosen.only] if chosen.only else list(TASKS)):
            if cell not in known:
                study = Study(chosen.models, chosen.tasks, cell.task, Path(folder) / cell.task)
                known[cell] = study.run(cell)
                with chosen.results.open("a") as stream:
                    stream.write(json.dumps(asdict(cell) | asdict(known[cell])) + "\n")
                print(cell, known[cell], flush=True)
    if chosen.page:
        replace_figures(chosen.page, show(known))


def cells(tasks: Sequence[str]) -> Iterator[Cell]:
    """Name the rows, those of the smaller large model first."""
    for large in LARGE:
        for task in tasks:
            if large == LARGE[0]:
                yield Cell(task, "", "expert")
            for way in ("base", "proxy", "tuned"):
                yield Cell(task, large, way)


def read(file: Path) -> dict[Cell, Outcome]:
    """Read the results of earlier calls."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        values = json.loads(line)
        cell = Cell(**{name: values.pop(name) for name in ("task", "large", "way")})
        found[cell] = Outcome(**values)
    return found


class Study:
    """The models on one task."""

    def __init__(self, models: Path, tasks: Path, task: str, folder: Path) -> None:
        self._models, self._data, self._metric = models, str(tasks / task), TASKS[task]
        self._folder = folder  # of trained models, which the studies of a task share

    def run(self, cell: Cell) -> Outcome:
        """Make one row."""
        if cell.way == "expert":
            return self._scored(self._task(str(self._expert())))
        if cell.way == "base":
            return self._scored(self._task(str(self._models / cell.large)))
        if cell.way == "tuned":
            return self._scored(self._task(str(self._trained(cell.large))))
        expert = self._expert()
        steering = steering_of(
            str(self._models / cell.large), Expert(str(expert), "", str(self._models / SMALL)), 1.0
        )
        return self._proxy(self._task(str(expert)).steered_by(steering), steering)

    def _expert(self) -> Path:
        folder = self._folder / SMALL
        return folder if folder.exists() else self._trained(SMALL)

    def _trained(self, name: str) -> Path:
        """Train a model in full and return the folder of the result."""
        task = self._task(str(self._models / name))
        runner = Runner(task)
        spec = TrialSpec(
            "proxy", pipeline(RATES[name]), 0, 1, min(EXAMPLES, len(task.train)), "", halvings=()
        )
        tokens = sum(example.tokens for example in task.training_examples(spec))
        spec = replace(spec, full_length_tokens=tokens, folder=str(self._folder / f"trial-{name}"))
        end = task.plan(spec).grid[-1]
        measured = runner.advance(spec, 0, end)
        assert measured.error is None, measured.error
        runner.save(spec, end, str(self._folder / name), str(self._models / name))
        return self._folder / name

    def _proxy(self, task: TrainingTask, steering: Steering) -> Outcome:
        runner = Runner(task)
        losses = {}
        for alpha in ALPHAS:
            runner.steer(alpha)
            losses[f"{alpha:g}"] = runner.score(None, 0, "validation").score.loss
        best = min(losses, key=lambda alpha: losses[alpha])
        del runner
        chosen = replace(task, steering=replace(steering, alpha=float(best)))
        return replace(self._scored(chosen), alpha=float(best), by_alpha=losses)

    def _scored(self, task: TrainingTask) -> Outcome:
        runner = Runner(task)
        score = runner.score(None, 0, "test", metric=self._metric, generate_limit=TESTED).score
        assert score.metric is not None
        return Outcome(score.loss, score.metric, tokens_per_second(task))

    def _task(self, model: str) -> TrainingTask:
        settings = SessionSettings(
            model,
            self._data,
            kind="generation",
            objective=self._metric,
            test_examples=TESTED,
            threads=1,
            dtype="float32",
        )
        task = prepare_task(settings, Silent()).training_task
        few = task.validation[:TESTED]
        return replace(task, subset=few, validation=few)


def pipeline(learning_rate: float) -> Pipeline:
    """Return full finetuning at a learning rate, with batches of 4 and else as the baseline."""
    shared = {
        name: value
        for name, value in BASELINE.hyperparameters.items()
        if not name.startswith(("lora_", "use_", "init_lora", "target_"))
    }
    return Pipeline("full", {**shared, "learning_rate": learning_rate, "per_device_train_batch_size": 4})


def tokens_per_second(task: TrainingTask) -> float:
    """Time one answer of a fixed number of tokens in processor seconds; the fastest of three."""
    tokenizer = load_tokenizer(task.model)
    examples = [task.test_examples[0]]
    model: Any = load_finished(
        task.model, "", task.steering, tokenizer, examples, dtype=torch.float32, device="cpu"
    )
    prompt = encode_prompt(examples[0], tokenizer, max_length=task.max_length, architecture="decoder-only")
    ids, mask = padded([prompt], 0, left=True)
    compute = Compute("cpu", "float32", "decoder-only", tokenizer.pad_token_id)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        with torch.inference_mode(), compute.autocast(), quiet():
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=TIMED_TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=tokenizer.pad_token_id,
            )
        seconds.append(time.process_time() - began)
    return TIMED_TOKENS / min(seconds)


def gap_closed(base: float, tuned: float, proxy: float, *, higher_is_better: bool = False) -> float | None:
    """Return the share of the way from base to tuned that the proxy goes; None if tuning did not help."""
    gain = tuned - base if higher_is_better else base - tuned
    return (base - proxy) / (base - tuned) if gain > 0 else None


def show(known: dict[Cell, Outcome]) -> str:
    """Write one table for each task."""
    parts = []
    for task in dict.fromkeys(cell.task for cell in known):
        metric = TASKS[task]
        parts += [f"### {task}", ""]
        names = ("large model", "row", "alpha", "test loss", metric, "tokens/s")
        parts.append(f"| {' | '.join(names)} | gap closed, loss | gap closed, {metric} |")
        parts.append("|---" * 8 + "|")
        expert = known.get(Cell(task, "", "expert"))
        if expert is not None:
            parts.append(_row("", f"{SMALL} tuned alone", expert, "", ""))
        for large in LARGE:
            rows = {way: known.get(Cell(task, large, way)) for way in ("base", "proxy", "tuned")}
            base, proxy, tuned = rows["base"], rows["proxy"], rows["tuned"]
            for way, found in rows.items():
                if found is None:
                    continue
                gaps = ["", ""]
                if way == "proxy" and base and proxy and tuned:
                    shares = [
                        gap_closed(base.loss, tuned.loss, proxy.loss),
                        gap_closed(base.metric, tuned.metric, proxy.metric, higher_is_better=True),
                    ]
                    gaps = ["-" if share is None else f"{share:.0%}" for share in shares]
                parts.append(_row(large, way, found, *gaps))
        parts.append("")
    return "\n".join(parts)


def _row(large: str, way: str, found: Outcome, *gaps: str) -> str:
    alpha = "" if found.alpha is None else f"{found.alpha:g}"
    figures = [f"{found.loss:.3f}", f"{found.metric:.3f}", f"{found.tokens_per_second:.0f}"]
    return "| " + " | ".join([large, way, alpha, *figures, *gaps]) + " |"


if __name__ == "__main__":
    main()
