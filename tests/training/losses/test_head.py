"""A classification head on the last state: with every method, resumed, and loaded by transformers alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workshop
from tunecast import models
from tunecast.methods import get_method
from tunecast.models.classifier import why_no_head, with_head
from tunecast.records import Outcome, Pipeline
from tunecast.training.compute import Compute
from tunecast.training.label_likelihood import choose_labels
from tunecast.training.losses.head import HeadLoss, head_scores
from tunecast.training.losses.labels import completion_ids, prompt_ids
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask

PLAIN = Pipeline("full", {})
HEADED = tuple(
    name
    for name, changes in workshop.VARIANTS.items()
    if get_method(str(changes.get("method", "lora"))).supports_head
)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def task(request: pytest.FixtureRequest) -> TrainingTask:
    """With prompts of unequal length, so that batches are padded."""
    made = workshop.labelled_task(request.getfixturevalue(f"tiny_{request.param}"))
    train = [
        replace(one, input_ids=one.input_ids[row % 5 :], labels=one.labels[row % 5 :])
        for row, one in enumerate(made.train)
    ]
    return replace(made, train=tuple(train))


@pytest.fixture(scope="module")
def llama_task(tiny_llama: Path) -> TrainingTask:
    return workshop.labelled_task(tiny_llama)


def compute_of(task: TrainingTask) -> Compute:
    tokenizer = models.load_tokenizer(task.model)
    return Compute("cpu", "float32", task.facts.architecture, tokenizer.pad_token_id)


def headed(task: TrainingTask, seed: int = 0) -> Any:
    """A random model whose states differ clearly, under a head."""
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return HeadLoss(task.labels).model(base, compute_of(task), seed)


def scores(task: TrainingTask, model: Any) -> np.ndarray:
    batch = HeadLoss(task.labels).collate(task.train, compute_of(task))
    with torch.no_grad():
        return np.asarray(head_scores(model, batch).numpy())


def test_a_head_reads_the_last_state_of_the_prompt(task: TrainingTask) -> None:
    """Alone and padded, by the head's weights on the base model's last state, computed by hand."""
    model, found = headed(task), scores(task, headed(task))
    for row, example in enumerate(task.train[:3]):
        with torch.no_grad():
            states = model.base_model(torch.tensor([prompt_ids(example)])).last_hidden_state
        expected = states[0, -1] @ model.score.weight.T
        assert found[row] == pytest.approx(expected.numpy(), abs=1e-5)
    assert not np.allclose(found, scores(task, headed(task, seed=1)))


def test_left_and_right_padding_agree(task: TrainingTask) -> None:
    """Users of the delivered model pad on the right, as most tokenizers do."""
    model, pad = headed(task), compute_of(task).pad_token_id
    prompts = [prompt_ids(example) for example in task.train]
    longest = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts])
    with torch.no_grad():
        right = model(input_ids=ids, attention_mask=(ids != pad).long()).logits
    assert len(set(map(len, prompts))) > 1
    assert right.numpy() == pytest.approx(scores(task, model), abs=1e-5)


def test_a_new_head_guesses_and_its_loss_is_the_cross_entropy(task: TrainingTask) -> None:
    loss, model = HeadLoss(task.labels), headed(task)
    batch = loss.collate(task.train, compute_of(task))
    minimised, reported = loss.minimised(model, batch, PLAIN)
    shares = torch.tensor(scores(task, model)).log_softmax(dim=1)
    places = [[label.ids for label in task.labels].index(completion_ids(one)) for one in task.train]
    expected = -shares[torch.arange(len(places)), places]
    assert minimised.detach() == pytest.approx(expected, abs=1e-5)
    assert reported == pytest.approx(expected, abs=1e-5)
    assert minimised.mean().item() == pytest.approx(math.log(len(task.labels)), abs=0.5)
    smoothed, plain = loss.minimised(model, batch, Pipeline("full", {"label_smoothing": 0.3}))
    assert smoothed.detach() == pytest.approx(0.7 * expected - 0.3 * shares.mean(dim=1), abs=1e-5)
    assert plain == pytest.approx(expected, abs=1e-5)
    with torch.no_grad():
        assert loss.measure(model, batch) == pytest.approx(expected, abs=1e-5)


def test_the_answer_is_the_label_of_the_highest_score(task: TrainingTask) -> None:
    model = headed(task)
    prompts = [prompt_ids(example) for example in task.train]
    nats, chosen, confidence = choose_labels(
        model, prompts, [label.ids for label in task.labels], compute_of(task)
    )
    found = torch.tensor(scores(task, model))
    assert chosen.tolist() == found.argmax(dim=1).tolist()
    assert len(set(chosen)) > 1
    assert np.exp(-nats).sum(axis=1) == pytest.approx(np.ones(len(prompts)))
    assert confidence == pytest.approx(found.softmax(dim=1).max(dim=1).values.numpy(), abs=1e-5)


def test_the_base_model_stays_as_it_is(llama_task: TrainingTask) -> None:
    base = models.load_model(llama_task.model, dtype=torch.float32, device="cpu")
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    model = with_head(base, ["a", "b"], 3, 0)
    assert model.base_model is base.model
    assert base.config.id2label != model.config.id2label == {0: "a", 1: "b"}
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_encoder_decoders_get_no_head(tiny_t5: Path, llama_task: TrainingTask) -> None:
    assert why_no_head(workshop.labelled_task(tiny_t5).facts) == "it is an encoder-decoder"
    assert why_no_head(llama_task.facts) is None
    other = replace(llama_task.facts, family="other", config={"model_type": "other"})
    assert why_no_head(other) == "transformers does not know the family other"
    other = replace(llama_task.facts, family="mamba", config={"model_type": "mamba"})
    assert why_no_head(other) == "transformers has no sequence classification for the family mamba"


@pytest.mark.parametrize("variant", HEADED)
def test_a_trial_learns_resumes_bit_by_bit_and_is_delivered(
    variant: str, llama_task: TrainingTask, tmp_path: Path
) -> None:
    pipeline = workshop.pipeline(variant, training_loss="head", per_device_train_batch_size=4)
    if reason := get_method(pipeline.method).applies(llama_task.facts):
        pytest.skip(reason)
    spec = replace(workshop.spec(llama_task, pipeline, epochs=2), folder=str(tmp_path / "one"))
    grid = llama_task.plan(spec).grid
    runner = Runner(llama_task)
    untouched = runner.score(None, 0, "validation", metric="accuracy", generate_limit=20).score
    whole = workshop.run_trial(runner, spec)
    assert [one.error for one in whole] == [None] * len(grid)
    assert whole[-1].outcome is Outcome.COMPLETED
    other = replace(spec, folder=str(tmp_path / "two"))
    first = workshop.run_trial(Runner(llama_task), other, points=1)
    rest = workshop.run_trial(Runner(llama_task), other, after=grid[0])
    assert workshop.curve([*first, *rest]) == workshop.curve(whole)
    scored = runner.score(spec, grid[-1], "validation", generate_limit=20)
    (tmp_path / "best").mkdir()
    runner.save(spec, grid[-1], str(tmp_path / "best"), llama_task.model.location)
    answers = [output.after for output in scored.outputs]
    assert delivered_answers(llama_task, tmp_path / "best", get_method(pipeline.method).delivers) == answers
    assert runner.score(None, 0, "validation", metric="accuracy", generate_limit=20).score == untouched
    assert bool(runner.reloads) == (variant in ("pissa", "mezo")), "only these change the base's weights"


def delivered_answers(task: TrainingTask, folder: Path, delivers: str) -> list[str]:
    """Answer by what was delivered, one prompt at a time, with transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(folder)
    if delivers == "adapter":
        base = AutoModelForSequenceClassification.from_pretrained(task.model.location, config=config)
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found = [int(model(torch.tensor([prompt_ids(one)])).logits.argmax()) for one in task.validation]
    return [config.id2label[place] for place in found]


def test_training_a_head_learns_the_labels(llama_task: TrainingTask, tmp_path: Path) -> None:
    pipeline = workshop.pipeline("full", training_loss="head", learning_rate=0.01)
    spec = replace(workshop.spec(llama_task, pipeline, epochs=30), folder=str(tmp_path))
    runner = Runner(llama_task)
    end = workshop.run_trial(runner, spec)[-1].point
    assert end is not None
    assert end.validation.nats_per_completion < 0.5 * math.log(len(llama_task.labels))
    after = runner.score(spec, end.step, "validation", metric="accuracy", generate_limit=20).score
    assert (after.metric or 0) > 0.8
    assert after.nats_per_completion == pytest.approx(end.validation.nats_per_completion, abs=0.3)


@pytest.mark.parametrize("variant", ["full", "lora"])
def test_a_head_over_a_base_in_bfloat16_is_trained_in_float32(
    variant: str, llama_task: TrainingTask, tmp_path: Path
) -> None:
    task = replace(llama_task, dtype="bfloat16")
    spec = replace(
        workshop.spec(task, workshop.pipeline(variant, training_loss="head"), epochs=2), folder=str(tmp_path)
    )
    runner = Runner(task)
    assert workshop.run_trial(runner, spec)[-1].outcome is Outcome.COMPLETED
    assert runner._live is not None
    trained = {name: p for name, p in runner._live.model.named_parameters() if p.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    (head,) = (weight for name, weight in trained.items() if "score" in name)
    start = with_head(runner._base, ["a", "b", "c"], 3, spec.seed).score.weight
    assert not torch.allclose(head, start.float(), atol=1e-4), "it has learned"
    (tmp_path / "best").mkdir()
    end = task.plan(spec).grid[-1]
    runner.save(spec, end, str(tmp_path / "best"), task.model.location)
    delivers = get_method(variant).delivers
    scored = runner.score(spec, end, "validation", generate_limit=20)
    answers = delivered_answers(task, tmp_path / "best", delivers)
    same = [given == output.after for given, output in zip(answers, scored.outputs, strict=True)]
    assert np.mean(same) >= 0.9, "rounding may turn a close answer"
