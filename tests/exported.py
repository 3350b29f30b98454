"""What tests of exports share: pipelines as files, and the losses of Tunecast's own training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import tiny
import workshop
from tunecast import data, models
from tunecast.methods import BASELINE, Restrictions, baseline_pipeline, get_method
from tunecast.records import Pipeline
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.plan import plan_trial

IDS = torch.tensor([[5, 9, 30, 40, 7]])
QLORA: dict[str, Any] = {"learning_rate": 1e-4, "lora_r": 8, "lora_alpha": 16, "target_modules": "attention"}


def write_pipeline(folder: Path, pipeline: Pipeline) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pipeline.json"
    content = {"method": pipeline.method, "hyperparameters": dict(pipeline.hyperparameters)}
    file.write_text(json.dumps(content))
    return str(file)


def changed(method: str = "lora", **values: object) -> Pipeline:
    return Pipeline(method, {**BASELINE.hyperparameters, **values})


def conversations(path: Path, count: int = 60) -> Path:
    """Conversations of one or two rounds, some with a system message."""
    rows = tiny.toy_rows(2 * count, seed=5)
    written = []
    for number in range(count):
        turns = [{"role": "system", "content": f"Session {number}."}] if number % 3 else []
        for row in rows[2 * number : 2 * number + 1 + number % 2]:
            turns.append({"role": "user", "content": row["prompt"]})
            turns.append({"role": "assistant", "content": row["completion"]})
        written.append({"messages": turns})
    return tiny.write_jsonl(path, written)


def tunecast_losses(
    model: Path, source: Path, pipeline: Pipeline, *, epochs: float, seed: int
) -> list[float]:
    """The loss of every step of a trial, as a worker trains it."""
    resolved = models.resolve(str(model))
    facts, tokenizer = models.describe(resolved), models.load_tokenizer(resolved)
    dataset = data.read(str(source), seed=seed)
    length = data.fitting_length(dataset, tokenizer, context=facts.context, architecture=facts.architecture)
    examples = data.encode(dataset.train, tokenizer, max_length=length, architecture=facts.architecture)
    lengths = [example.tokens for example in examples]
    plan = plan_trial(lengths, pipeline, seed=seed, full_length_tokens=round(epochs * sum(lengths)))
    base = models.load_model(resolved, dtype=torch.float32, device="cpu")
    live = LiveTrial(
        get_method(pipeline.method).attach(base, pipeline, seed),
        pipeline,
        plan,
        examples,
        Compute("cpu", "float32", facts.architecture, tokenizer.pad_token_id),
        CompletionLoss(),
        seed=seed,
    )
    return [live.advance(step).train_loss for step in range(1, plan.total_steps + 1)]


def completed(model: Path, pipeline: Pipeline) -> Pipeline:
    """A pipeline with its method's defaults, as ``tunecast train`` fills them in."""
    facts = models.describe(models.resolve(str(model)))
    usual = baseline_pipeline(facts, Restrictions((pipeline.method,), pipeline.hyperparameters))
    return Pipeline(pipeline.method, {**usual.hyperparameters, **pipeline.hyperparameters})


def deliver_adapter(variant: str, model: Path, folder: Path, *, scale: float = 0.05) -> Any:
    """Write an adapter with weights unlike its start as a session delivers it; return its logits."""
    resolved = models.resolve(str(model))
    base = models.load_model(resolved, dtype=torch.float32, device="cpu")
    pipeline = workshop.pipeline(variant)
    method = get_method(pipeline.method)
    adapted = method.attach(base, pipeline, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))
        logits = adapted.eval()(IDS).logits
    (folder / "best").mkdir(parents=True)
    method.save(adapted, folder / "best", str(model.resolve()))
    models.load_tokenizer(resolved).save_pretrained(folder / "best")
    (folder / "best" / "training.json").write_text('{"seed": 3}')
    return logits
