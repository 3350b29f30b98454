"""Training a prior, from the command line too."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planted_runs import ZERO_SHOT_LOSS, planted_dataset, planted_model, planted_runs
from sample_runs import sample_machine
from sessions import call_main
from tunecast.errors import StoreError
from tunecast.methods.rates import adapter_rate
from tunecast.predictor import Prior, TaskDescription, load_prior, read_prior
from tunecast.predictor.cost import fit_cost
from tunecast.predictor.endings import recorded
from tunecast.predictor.features import feature_rows
from tunecast.predictor.quality import Ends, Trial
from tunecast.predictor.train import report, train
from tunecast.predictor.validation import score_divergence
from tunecast.records import Outcome, Pipeline, Published, Run, Seconds, Task
from tunecast.store import Store


def test_what_is_kept_for_comparisons_was_not_learned_from() -> None:
    kept = ("_slots", "_match", "privacy_question_category", "e2e_nlg")
    assert not [task for task in load_prior().provenance.tasks if task.endswith(kept)]


def test_too_few_tasks_are_refused() -> None:
    with pytest.raises(StoreError, match="at least 3"):
        train(planted_runs(tasks=2))
    with pytest.raises(StoreError, match=r"at least 3 families .* these runs have 0"):
        train([])


def test_datasets_and_base_models_are_told_apart_whatever_they_are_called() -> None:
    def called_alike(run: Run) -> Run:
        return replace(
            run,
            task=Task("train", "model"),
            dataset=replace(run.dataset, name="train"),
            model=replace(run.model, name="model"),
        )

    runs = [*planted_runs(tasks=4), *planted_runs(tasks=4, model=planted_model(192), seed=1)]
    alike, apart = (train(told) for told in ([called_alike(run) for run in runs], runs))
    assert alike.provenance.tasks == ("train",) * 4
    assert alike.provenance.models == {"small-128": "model", "small-192": "model"}
    assert alike.provenance.zero_shot_loss == apart.provenance.zero_shot_loss
    assert alike.novelty.limit == apart.novelty.limit
    assert alike.cost["cpu"].deviation == pytest.approx(apart.cost["cpu"].deviation)


def ends_of(prior: Prior, task: TaskDescription, pipelines: Sequence[Pipeline]) -> Ends:
    return prior.quality.predict([Trial(task, pipeline, 64) for pipeline in pipelines])


def test_what_was_learned_carries_over_to_a_wider_model() -> None:
    runs = [*planted_runs(model=planted_model(128)), *planted_runs(model=planted_model(192), seed=1)]
    prior = train(runs)
    wide = planted_model(512)
    setting = TaskDescription(planted_dataset(2), wide, 64_000, 400, 4.0)
    multiples = np.exp(np.linspace(-4, 4, 9))
    pipelines = [
        Pipeline(
            "lora",
            {"learning_rate": m * adapter_rate(wide), "lora_r": 8, "lora_alpha": 16}
            | {"per_device_train_batch_size": 8},
        )
        for m in multiples
    ]
    best = multiples[int(np.argmin(ends_of(prior, setting, pipelines).mean))]
    assert abs(math.log(best)) <= 1.0


def test_seconds_and_failures_are_learned() -> None:
    prior = train(planted_runs(runs=40))
    model = planted_model()
    setting = TaskDescription(planted_dataset(1), model, 64_000, 400, 4.0)
    rates = {"learning_rate": adapter_rate(model), "per_device_train_batch_size": 8}
    high = {"learning_rate": 50 * adapter_rate(model), "per_device_train_batch_size": 8}
    lora = {"lora_r": 8, "lora_alpha": 16}
    pipelines = [Pipeline("full", rates), Pipeline("lora", rates | lora), Pipeline("lora", high | lora)]
    full, adapter, _ = prior.cost["cpu"].log_seconds_per_token(feature_rows(setting, pipelines))
    assert full - adapter == pytest.approx(math.log(2), abs=0.2)
    failure = ends_of(prior, setting, pipelines).failure
    assert failure[2] > 5 * failure[1]


def test_runs_of_a_single_dataset_tell_no_seconds_of_others() -> None:
    assert fit_cost(planted_runs(tasks=1, runs=40)) == {}
    assert list(fit_cost(planted_runs(tasks=2, runs=20))) == ["cpu"]


def test_a_device_of_which_there_are_fewer_runs_keeps_its_own_seconds() -> None:
    def on_cuda(run: Run) -> Run:
        """There, adapters take four times as long per token as full finetuning."""
        wall = {"full": 1e-5, "lora": 4e-5}.get(run.pipeline.method, 1e-5)
        points = [replace(p, training=Seconds(wall * p.tokens_seen, 9.0), workers=1) for p in run.curve]
        return replace(run, curve=tuple(points), machine=sample_machine(device="cuda:0"))

    runs = planted_runs(tasks=6, runs=30)
    runs = [on_cuda(run) if number % 3 == 0 else run for number, run in enumerate(runs)]
    costs = fit_cost(runs)
    setting = TaskDescription(planted_dataset(1), planted_model(), 64_000, 400, 4.0)
    common = {"learning_rate": adapter_rate(planted_model()), "per_device_train_batch_size": 8}
    lora = common | {"lora_r": 8, "lora_alpha": 16}
    rows = feature_rows(setting, [Pipeline("full", common), Pipeline("lora", lora)])
    for device, ratio in (("cpu", 0.5), ("cuda", 4.0)):
        seconds = costs[device].log_seconds_per_token(rows)
        assert seconds[1] - seconds[0] == pytest.approx(math.log(ratio), abs=0.25)
    assert set(costs) == {"cpu", "cuda"}


def test_the_quality_of_seconds_bytes_and_odds_is_told() -> None:
    runs = [*planted_runs(tasks=6, runs=20)]
    prior = train(runs)
    text = report(runs, [], prior)
    assert re.search(r"^Seconds per token \(cpu\), held-out tasks: within a factor 1\.\d\d\.$", text, re.M)
    assert re.search(r"^Bytes \(cpu\), held-out tasks: within a factor 1\.\d\d\.$", text, re.M)
    pattern = r"^Divergence, held-out tasks: log loss 0\.\d+ \(of the base rate 0\.\d+\), AUC (1|0)\.\d+\.$"
    assert re.search(pattern, text, re.M)


def test_odds_of_divergence_are_judged_on_tasks_that_they_were_not_learned_from() -> None:
    runs = planted_runs(tasks=8, runs=40)
    told = score_divergence(recorded(runs))
    assert told is not None
    assert told.log_loss < 0.5 * told.base_log_loss
    assert told.auc > 0.9
    # What is drawn by lot for every task is not to be known from others.
    draw = np.random.default_rng(0)
    lots = [
        replace(run, outcome=Outcome.DIVERGED if draw.random() < 0.3 else Outcome.COMPLETED) for run in runs
    ]
    drawn = score_divergence(recorded(lots))
    assert drawn is not None
    assert drawn.log_loss > 0.98 * drawn.base_log_loss
    assert abs(drawn.auc - 0.5) < 0.15


def test_runs_out_of_memory_do_not_count_as_diverged() -> None:
    runs = planted_runs(tasks=4, runs=20)
    gone = [replace(run, outcome=Outcome.OUT_OF_MEMORY, curve=()) for run in runs[::2]]
    assert len(recorded([*runs, *gone])) == len(recorded(runs))


def test_seconds_follow_their_arithmetic_beyond_the_models_that_were_seen() -> None:
    seen = planted_model()
    larger = replace(seen, parameters=100 * seen.parameters)
    cost = fit_cost(planted_runs(runs=40))["cpu"]
    pipeline = Pipeline("full", {"learning_rate": 1e-3, "per_device_train_batch_size": 8})
    small, large = (
        cost.log_seconds_per_token(
            feature_rows(TaskDescription(planted_dataset(1), model, 64_000, 400, 4.0), [pipeline])
        )[0]
        for model in (seen, larger)
    )
    assert math.exp(large - small) == pytest.approx(100, rel=0.3)


def test_machines_that_were_shared_tell_how_methods_compare_and_exclusive_ones_how_fast_they_are() -> None:
    def timed(run: Run, exclusive: bool) -> Run:
        slower = 1.0 if exclusive else 1.5
        points = [
            replace(point, training=Seconds(slower * point.training.cpu, slower * point.training.cpu))
            for point in run.curve
        ]
        return replace(run, curve=tuple(points), exclusive=exclusive)

    drawn = planted_runs(runs=40)
    runs = [timed(run, number % 5 == 0) for number, run in enumerate(drawn)]
    known = [run for run in runs if not (run.exclusive and run.pipeline.method == "lora")]
    setting = TaskDescription(planted_dataset(1), planted_model(), 64_000, 400, 4.0)
    common = {"learning_rate": adapter_rate(planted_model()), "per_device_train_batch_size": 8}
    lora = common | {"lora_r": 8, "lora_alpha": 16}
    rows = feature_rows(setting, [Pipeline("full", common), Pipeline("lora", lora)])
    mixed, alone = (
        fit_cost(told)["cpu"].log_seconds_per_token(rows)
        for told in (known, [timed(run, True) for run in drawn])
    )
    assert mixed == pytest.approx(alone, abs=0.1)


def test_a_base_model_that_was_not_learned_from_is_predicted_with_a_wider_spread() -> None:
    def falling(run: Run, times: float) -> Run:
        points = [
            replace(
                point,
                validation=replace(
                    point.validation,
                    loss=ZERO_SHOT_LOSS * (point.validation.loss / ZERO_SHOT_LOSS) ** times,
                ),
            )
            for point in run.curve
        ]
        return replace(run, curve=tuple(points))

    widths = {128: 0.4, 160: 1.0, 192: 0.5, 224: 1.1}
    runs = [
        falling(run, times)
        for seed, (width, times) in enumerate(widths.items())
        for run in planted_runs(model=planted_model(width), seed=seed)
    ]
    prior = train(runs)
    pipeline = Pipeline("lora", {"learning_rate": adapter_rate(planted_model(160)), "lora_r": 8})
    known = TaskDescription(planted_dataset(1), planted_model(160), 64_000, 400, ZERO_SHOT_LOSS)
    other = replace(known, model=replace(known.model, weights_hash="another"))
    trained, new = (ends_of(prior, one, [pipeline]) for one in (known, other))
    assert new.mean == trained.mean
    assert new.variance > 1.5 * trained.variance


def test_from_the_command_line(tmp_path: Path) -> None:
    url, output = str(tmp_path / "runs.sqlite"), tmp_path / "prior.safetensors"
    with Store.open(url) as store:
        for run in planted_runs(tasks=4, runs=5):
            store.put(run)
    code, out, err = call_main("learn", "--store", url, "--output", str(output), "--no-scores")
    assert (code, err) == (0, "")
    assert "Wrote" in out
    prior = read_prior(output)
    assert len(prior.provenance.tasks) == 4
    assert "llama" in prior.quality.law.names_by_kind()["families"], "the shipped tables teach rates"


def test_published_tables_of_the_store_teach_rates_too(tmp_path: Path) -> None:
    url, output = str(tmp_path / "runs.sqlite"), tmp_path / "prior.safetensors"
    runs = planted_runs(tasks=3, runs=4)
    with Store.open(url) as store:
        store.put_all([*runs, *sweep_runs(runs[1], "newcomer")])
    code, _, err = call_main("learn", "--store", url, "--output", str(output), "--no-scores")
    assert (code, err) == (0, "")
    assert {"newcomer", "llama"} <= set(read_prior(output).quality.law.names_by_kind()["families"])


def sweep_runs(run: Run, family: str) -> list[Run]:
    """A published sweep of rates on a large model of a family."""
    facts = {"name": family, "family": family, "parameters": 8_000_000_000, "pretraining_tokens": None}
    model = replace(run.model, **facts, weights_hash="")
    unit = ("someone/somewhere", "abc", "Apache-2.0", "nats per token")
    found = []
    for place, rate in enumerate((1e-4, 3e-4, 1e-3, 3e-3)):
        published = Published("rates", *unit, 1.5 + 0.01 * abs(place - 1), higher_is_better=False)
        pipeline = Pipeline("lora", {"learning_rate": rate, "lora_r": 16, "lora_alpha": 32})
        found.append(
            replace(
                run,
                id=f"{family}-{place}",
                task=Task("chat", family, "test_nll"),
                model=model,
                pipeline=pipeline,
                curve=(),
                published=published,
            )
        )
    return found


def test_a_disk_that_fills_up_while_it_learns_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_prior: Prior, _path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    url, output = str(tmp_path / "runs.sqlite"), tmp_path / "prior.safetensors"
    with Store.open(url) as store:
        store.put_all(planted_runs(tasks=3, runs=4))
    # To train every family takes seconds, and what fails comes after it.
    monkeypatch.setattr("tunecast.predictor.train.train", lambda *_, **__: load_prior())
    monkeypatch.setattr(Prior, "save", full)
    code, _, err = call_main("learn", "--store", url, "--output", str(output), "--no-scores")
    assert code == 2
    assert f"--output {output} cannot be written: No space left on device" in err


def test_scores_on_what_is_left_out_are_printed(tmp_path: Path) -> None:
    url, output = str(tmp_path / "runs.sqlite"), tmp_path / "prior.safetensors"
    with Store.open(url) as store:
        store.put_all(planted_runs(tasks=4, runs=5))
    code, out, err = call_main("learn", "--store", url, "--output", str(output))
    assert (code, err) == (0, "")
    rows = {line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")}
    assert {"measured", "unknown"} <= rows, out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--store", "nowhere.sqlite"], "nowhere"), (["--output", "."], "cannot be written")],
)
def test_mistakes_are_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("runs.sqlite") as store:
        for run in planted_runs(tasks=3, runs=4):
            store.put(run)
    given = {"--store": "runs.sqlite", "--output": "prior"} | dict([arguments])
    code, _, err = call_main("learn", *[word for pair in given.items() for word in pair], "--no-scores")
    assert code == 2
    assert message in err


def test_seconds_of_a_busy_processor_are_those_that_it_computed() -> None:
    def starved(run: Run, factor: float) -> Run:
        points = [
            replace(point, training=Seconds(point.training.wall * factor, point.training.cpu))
            for point in run.curve
        ]
        return replace(run, curve=tuple(points))

    runs = planted_runs(runs=40)
    factors = np.random.default_rng(0).uniform(1, 9, len(runs))
    quiet = fit_cost(runs)["cpu"]
    busy = fit_cost([starved(run, factor) for run, factor in zip(runs, factors, strict=True)])["cpu"]
    assert busy.deviation == quiet.deviation
    alone = fit_cost([replace(starved(run, 2.0), exclusive=True) for run in runs])["cpu"]
    assert alone.line.weights[0] == pytest.approx(quiet.line.weights[0] + math.log(2.0))
