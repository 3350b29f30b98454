"""Compares methods that choose which parameters to train with controls that choose them otherwise.

    python benchmarks/where_to_train.py masks MODEL --tasks FOLDER [--page docs/where-to-train.md]
    python benchmarks/where_to_train.py layers MODEL --tasks FOLDER [--page docs/where-to-train.md]
    python benchmarks/where_to_train.py places MODEL... --tasks FOLDER [--page docs/where-to-train.md]

``masks`` sets GMT, which lets a fifth of each matrix's gradients through, beside random and largest weights
of equal number, drawn or chosen in each step, and full finetuning. ``layers`` trains the layers that semantic
freezing chooses, half of all at most, the last, and random ones of equal number, with full weights and with
LoRA. ``places`` puts LoRA's pairs on all linear layers, and as many parameters in random places (APET), on
several models.

Every arm is trained on 320 examples of two tasks, for two passes in batches of 8, at three learning rates;
the one with the lowest validation loss counts. Results go to benchmarks/results/where_to_train.jsonl, one
line for each run, and a second call goes on from there. Arrays are small: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch

from tunecast.methods.gmt import GradientMask
from tunecast.methods.layers import final_norm, layer_stack
from tunecast.methods.lora import Lora
from tunecast.methods.registry import register
from tunecast.methods.semantic_freezing import CALIBRATION_EXAMPLES, best_cut, deviations
from tunecast.methods.weights import WeightsMethod
from tunecast.models import load_model
from tunecast.progress import Silent
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec
from tunecast_benchmarks.page_figures import replace_figures
from tunecast_benchmarks.small_studies import plain_pipeline, usual_rate, validated_alike

RESULTS = Path(__file__).parent / "results" / "where_to_train.jsonl"
TASKS = ("tweet_emotion", "atis_sql")
EXAMPLES = 320
PASSES = 2
TESTED = 200
RATES = (0.3, 1.0, 3.0)
"""Learning rates as multiples of the method's usual one."""
KEPT = 0.2
"""Share of the entries of each matrix that a mask lets through."""
PLACEMENTS = 3


class RandomMask(GradientMask):
    """GMT's control: lets a random share of each gradient through, another one in each step."""

    name: ClassVar[str] = "random_mask"

    def before_update(self, model: Any, learning_rate: float) -> None:
        """Mask the gradients of all matrices."""
        for gradient in _gradients(model):
            gradient.mul_(torch.rand_like(gradient) < KEPT)


class MagnitudeMask(GradientMask):
    """GMT's control: lets the gradients of each matrix's largest weights through."""

    name: ClassVar[str] = "magnitude_mask"

    def before_update(self, model: Any, learning_rate: float) -> None:
        """Mask the gradients of all matrices."""
        for parameter in model.parameters():
            if parameter.grad is not None and parameter.grad.ndim > 1:
                sizes = parameter.detach().abs()
                least = sizes.flatten().kthvalue(max(1, int((1 - KEPT) * sizes.numel()))).values
                parameter.grad.mul_(sizes > least)


class ChosenLayers(WeightsMethod):
    """Trains the layers that the hyperparameter ``layers`` lists, and the last normalisation."""

    name: ClassVar[str] = "chosen_layers"
    rate_multiple: ClassVar[float] = 0.1

    def choices(self, model: ModelFacts) -> Sequence[Any]:
        """Return nothing: the study gives the layers."""
        return ()

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return the names in the listed layers."""
        stack = layer_stack(model)
        modules = [*(stack[layer] for layer in _listed(pipeline)), final_norm(model)]
        wanted = {id(p) for module in modules if module is not None for p in module.parameters()}
        return [name for name, parameter in model.named_parameters() if id(parameter) in wanted]


class ChosenLora(Lora):
    """LoRA on all linear layers of the blocks that the hyperparameter ``layers`` lists."""

    name: ClassVar[str] = "chosen_lora"

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build LoRA's configuration with the listed layers."""
        config = super().peft_config(pipeline, encoder_decoder=encoder_decoder)
        config.layers_to_transform = _listed(pipeline)
        return config


CONTROLS = (RandomMask(), MagnitudeMask(), ChosenLayers(), ChosenLora())
"""Known only to this program: a session would offer them, once they are registered."""


@dataclass(frozen=True)
class Arm:
    """What is trained: a method with hyperparameters, under a name for the table."""

    name: str
    method: str
    values: Mapping[str, Scalar] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Cell:
    """One run."""

    study: str
    model: str
    task: str
    arm: str
    rate: float
    seed: int


Outcome = Mapping[str, Any]
"""``validation`` and ``test`` losses, ``cpu`` seconds of training, and ``values``."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=tuple(ARMS))
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tasks", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--only", nargs="+", default=TASKS, choices=TASKS, help="tasks to train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for control in CONTROLS:
        register(control)
    known = read(chosen.results)
    for seed in range(chosen.seeds):
        for model in chosen.models:
            for task in chosen.only:
                for cell, outcome in run(chosen.study, model, chosen.tasks / task, seed, known):
                    known[cell] = outcome
                    with chosen.results.open("a") as stream:
                        stream.write(json.dumps({**asdict(cell), **outcome}) + "\n")
                    print(cell, outcome, flush=True)
    if chosen.page:
        replace_figures(chosen.page, show(known))


def read(file: Path) -> dict[Cell, Outcome]:
    """Read the results of earlier calls."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        values = json.loads(line)
        cell = Cell(**{name: values.pop(name) for name in Cell.__dataclass_fields__})
        found[cell] = values
    return found


def run(
    study: str, model: str, data: Path, seed: int, known: Collection[Cell]
) -> Iterator[tuple[Cell, Outcome]]:
    """Train every arm that has no outcome on a task with a seed, at every rate."""
    name = Path(model).name
    names = [
        arm
        for arm in ARMS[study]
        for rate in RATES
        if Cell(study, name, data.name, arm, rate, seed) not in known
    ]
    if not names:
        return
    settings = SessionSettings(model, str(data), objective="loss", test_examples=TESTED, threads=1)
    task = validated_alike(prepare_task(settings, Silent()).training_task)
    runner = Runner(task)
    for arm in arms(study, task, seed):
        for rate in RATES:
            cell = Cell(study, name, data.name, arm.name, rate, seed)
            if cell not in known:
                yield cell, trained(runner, arm, cell)


def arms(study: str, task: TrainingTask, seed: int) -> list[Arm]:
    """Return the arms of a study, in the order of :data:`ARMS`."""
    if study == "masks":
        keep: dict[str, Scalar] = {"keep_share": KEPT}
        return [Arm("full", "full"), *(Arm(name, name, keep) for name in ARMS[study][1:])]
    if study == "places":
        lora: dict[str, Scalar] = {"lora_r": 8, "lora_alpha": 16}
        places = (
            Arm(f"apet {place}", "apet", {"budget_r": 8, "placement": place}) for place in range(PLACEMENTS)
        )
        return [Arm("lora", "lora", lora), *places]
    layers = task.facts.layers
    base = load_model(task.model, dtype=torch.float32, device="cpu")
    sample = [example for example in task.train if example.label_tokens][:CALIBRATION_EXAMPLES]
    chosen = list(range(best_cut(deviations(base, sample), layers // 2), layers))
    drawn = sorted(random.Random(seed).sample(range(layers), len(chosen)))
    found = [Arm("full, all", "full")]
    for method, text in (("chosen_layers", "full"), ("chosen_lora", "lora")):
        given = {"semantic": chosen, "last": [layers - 1], "random": drawn}
        for way, listed in given.items():
            found.append(Arm(f"{text}, {way}", method, {"layers": json.dumps(listed)}))
    return [*found[:4], Arm("lora, all", "lora"), *found[4:]]


ARMS: Mapping[str, tuple[str, ...]] = {
    "masks": ("full", "gmt", "random_mask", "magnitude_mask"),
    "layers": (
        *("full, all", "full, semantic", "full, last", "full, random"),
        *("lora, all", "lora, semantic", "lora, last", "lora, random"),
    ),
    "places": ("lora", *(f"apet {place}" for place in range(PLACEMENTS))),
}


def trained(runner: Runner, arm: Arm, cell: Cell) -> dict[str, Any]:
    """Train to the end of the schedule, and score."""
    task = runner.training_task
    spec = TrialSpec("study", pipeline_of(arm, cell.rate, task.facts), cell.seed, 1, EXAMPLES, "")
    tokens = sum(example.tokens for example in task.training_examples(spec))
    with TemporaryDirectory() as folder:
        spec = replace(spec, full_length_tokens=PASSES * tokens, folder=folder, halvings=())
        end = task.plan(spec).grid[-1]
        point = runner.advance(spec, 0, end).point
        if point is None:
            return {"validation": float("inf"), "test": float("inf"), "cpu": 0.0, "values": dict(arm.values)}
        test = runner.score(spec, end, "test").score.loss
    return {
        "validation": point.validation.loss,
        "test": test,
        "cpu": point.training.cpu,
        "values": dict(arm.values),
    }


def pipeline_of(arm: Arm, rate: float, facts: ModelFacts) -> Pipeline:
    """Build the pipeline of an arm at a multiple of its method's usual learning rate."""
    return plain_pipeline(arm.method, float(f"{rate * usual_rate(arm.method, facts):.3g}"), **arm.values)


def show(known: Mapping[Cell, Outcome]) -> str:
    """Write a table for each study and model: mean and standard deviation of the test loss over seeds."""
    lines: list[str] = []
    for study, model in dict.fromkeys((cell.study, cell.model) for cell in known):
        lines += [
            f"### {study}, {model}",
            "",
            f"| arm | {' | '.join(f'{task} | seconds' for task in TASKS)} |",
            "|---" * (2 * len(TASKS) + 1) + "|",
            *(f"| {arm} | {_row(known, study, model, arm)} |" for arm in ARMS[study]),
            "",
        ]
    return "\n".join(lines)


def _row(known: Mapping[Cell, Outcome], study: str, model: str, arm: str) -> str:
    return " | ".join(_of_task(known, study, model, task, arm) for task in TASKS)


def _of_task(known: Mapping[Cell, Outcome], study: str, model: str, task: str, arm: str) -> str:
    best, seconds = [], []
    for seed in sorted({cell.seed for cell in known}):
        of_rates = [
            outcome
            for cell, outcome in known.items()
            if (cell.study, cell.model, cell.task, cell.arm, cell.seed) == (study, model, task, arm, seed)
        ]
        if len(of_rates) == len(RATES):
            best.append(min(of_rates, key=lambda outcome: outcome["validation"])["test"])
            seconds += [outcome["cpu"] for outcome in of_rates]
    return f"{_spread(np.array(best))} | {np.median(seconds):.1f}" if seconds else "- | -"


def _spread(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if len(values) else "-"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f} ({len(values)})"


def _gradients(model: Any) -> Iterator[torch.Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None and p.grad.ndim > 1)


def _listed(pipeline: Pipeline) -> list[int]:
    return [int(layer) for layer in json.loads(str(pipeline["layers"]))]


if __name__ == "__main__":
    main()
