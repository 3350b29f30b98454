"""Compares training tokens per second of a trial with trl's SFTTrainer and a bare PyTorch loop, in one run.

All four train the same adapter from the same weights on the same batches with the same schedule. Rounds are
interleaved, so a change of the machine's speed affects all of them. The first steps of each are not counted.
Losses by step are compared too, because a faster loop that computes something else is no use.

    python benchmarks/trial_throughput.py [--model smollm2] [--data stdlib] [--steps 6] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunecast.methods import get_method
from tunecast.methods.space import BASELINE
from tunecast.models.load import load_model, quiet
from tunecast.progress import Silent
from tunecast.records import Pipeline
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.plan import TrialPlan
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec

WARMING_STEPS = 2


@dataclass(frozen=True)
class Work:
    """The work of every contestant."""

    training_task: TrainingTask
    spec: TrialSpec
    plan: TrialPlan
    steps: int

    def fresh_model(self) -> Any:
        """A newly adapted model."""
        dtype = getattr(torch, self.training_task.dtype)
        base = load_model(self.training_task.model, dtype=dtype, device=self.training_task.device)
        return get_method("lora").attach(base, self.spec.pipeline, self.spec.seed)

    def batch(self, step: int) -> list[Any]:
        """The examples of a step."""
        return [self.training_task.train[int(index)] for index in self.plan.batches[step]]


@dataclass(frozen=True)
class Result:
    """Seconds and losses by step."""

    seconds: list[float]
    losses: list[float]

    def rate(self, work: Work) -> float:
        """Tokens per second after the warming steps."""
        tokens = work.plan.tokens_at(work.steps) - work.plan.tokens_at(WARMING_STEPS)
        return tokens / sum(self.seconds[WARMING_STEPS:])


def ours(work: Work) -> Result:
    """A trial as a worker runs it."""
    compute = Compute(
        work.training_task.device, work.training_task.dtype, work.training_task.facts.architecture, 0
    )
    live = LiveTrial(
        work.fresh_model(),
        work.spec.pipeline,
        work.plan,
        work.training_task.train,
        compute,
        CompletionLoss(),
        seed=work.spec.seed,
    )
    segments = [live.advance(step + 1) for step in range(work.steps)]
    return Result([s.training.wall for s in segments], [s.train_loss for s in segments])


def bare(work: Work) -> Result:
    """The loop of a PyTorch tutorial: right padding, labels passed to the model, mean loss."""
    model = work.fresh_model().train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=work.spec.pipeline.number("learning_rate"), weight_decay=0.0)
    scheduler = _scheduler(optimizer, work.plan)
    seconds, losses = [], []
    for step in range(work.steps):
        start = time.perf_counter()
        inputs = _right_padded(work.batch(step))
        with torch.autocast("cpu", torch.bfloat16, enabled=work.training_task.dtype == "bfloat16"):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return Result(seconds, losses)


def sft_trainer(work: Work, *, defaults: bool) -> Result:
    """Trl's trainer on the same batches, with its defaults or with fair settings."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    rows = [example for step in range(work.steps) for example in work.batch(step)]
    dataset = Dataset.from_list([{"input_ids": list(e.input_ids), "labels": list(e.labels)} for e in rows])
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {} if defaults else {"gradient_checkpointing": False}
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=len(work.batch(0)),
            max_steps=work.steps,
            learning_rate=work.spec.pipeline.number("learning_rate"),
            lr_scheduler_type="cosine",
            warmup_steps=work.plan.warmup_steps,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=work.training_task.dtype == "bfloat16",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
            disable_tqdm=True,
            **settings,
        )
        from tunecast.models.load import load_tokenizer

        trainer = SFTTrainer(
            model=work.fresh_model(),
            args=config,
            train_dataset=dataset,
            processing_class=load_tokenizer(work.training_task.model),
            callbacks=[Clock()],
        )
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    pairs = zip(stamps[0::2], stamps[1::2], strict=True)
    return Result([end - begin for begin, end in pairs], losses)


def first_step_seconds(work: Work) -> tuple[float, float]:
    """Seconds from the request to a warm worker to the start and to the end of a new trial's first step."""
    runner = Runner(work.training_task)
    runner.measure_speed(work.spec, 0.0)
    start = time.perf_counter()
    live = runner._made_live(replace(work.spec, run="second"), 0)
    attached = time.perf_counter() - start
    live.advance(1)
    return attached, time.perf_counter() - start


def _right_padded(examples: list[Any]) -> dict[str, Any]:
    longest = max(len(example.input_ids) for example in examples)

    def padded(rows: list[Any], fill: int) -> Any:
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])

    ids = [example.input_ids for example in examples]
    return {
        "input_ids": padded(ids, 0),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([example.labels for example in examples], -100),
    }


def _scheduler(optimizer: Any, plan: TrialPlan) -> Any:
    from transformers import get_scheduler

    return get_scheduler(
        "cosine", optimizer, num_warmup_steps=plan.warmup_steps, num_training_steps=plan.total_steps
    )


def _prepare(model: str, data: str, steps: int, batch_size: int) -> Work:
    prepared = prepare_task(SessionSettings(model, data), Silent())
    pipeline = Pipeline(
        "lora", {**BASELINE.hyperparameters, "per_device_train_batch_size": batch_size, "warmup_ratio": 0.0}
    )
    training_task = prepared.training_task
    mean = training_task.train_tokens / len(training_task.train)
    spec = TrialSpec("throughput", pipeline, 0, int(steps * batch_size * mean), len(training_task.train), "")
    plan = training_task.plan(spec)
    # The schedule's horizon is the number of steps, so that the rate decays alike for all contestants.
    plan = replace(plan, batches=plan.batches[:steps], tokens=plan.tokens[:steps])
    return Work(training_task, spec, plan, plan.total_steps)


def main() -> None:
    """Run the contestants in turn and print rates, ratios and the largest difference of losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = _prepare(arguments.model, arguments.data, arguments.steps, arguments.batch_size)
    contestants: dict[str, Callable[[], Result]] = {
        "tunecast trial": lambda: ours(work),
        "SFTTrainer, fair": lambda: sft_trainer(work, defaults=False),
        "SFTTrainer, defaults": lambda: sft_trainer(work, defaults=True),
        "bare PyTorch loop": lambda: bare(work),
    }
    results: dict[str, list[Result]] = {name: [] for name in contestants}
    with quiet():
        for _ in range(arguments.rounds):
            for name, contest in contestants.items():
                results[name].append(contest())
    own = results["tunecast trial"]
    print(
        f"{work.training_task.facts.name}, {work.training_task.dtype}, "
        f"{work.steps} steps of {arguments.batch_size} examples"
    )
    print(f"{'':24}{'tokens/s':>10}{'ours / it':>11}{'largest loss difference':>26}")
    for name, rounds in results.items():
        ratios = [mine.rate(work) / theirs.rate(work) for mine, theirs in zip(own, rounds, strict=True)]
        gap = max(abs(a - b) for a, b in zip(own[0].losses, rounds[0].losses, strict=True))
        rate = statistics.median(result.rate(work) for result in rounds)
        print(f"{name:24}{rate:10.0f}{statistics.median(ratios):11.2f}{gap:26.4f}")
    attached, stepped = first_step_seconds(work)
    print(f"new trial on a warm worker: first step begins after {attached:.2f} s, ends after {stepped:.2f} s")


if __name__ == "__main__":
    main()
