"""The study of ``benchmarks/scaling_study.py`` on runs whose laws are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scaling_study as study
import study_checks
import study_design as design
import study_findings as findings
from sample_runs import sample_dataset, sample_model, sample_point, sample_run, sample_score
from tunecast.records import Outcome, Pipeline, Run, Task
from tunecast.store import Store

ROOT = Path(__file__).parents[2]
MODELS = {
    "nano-1m": (2e6, 1e6),
    "nano-4m": (2e6, 4e6),
    "nano-16m": (2e6, 16e6),
    "micro-1m": (7e6, 1e6),
    "micro-4m": (7e6, 4e6),
    "micro-16m": (7e6, 16e6),
    "mini-16m": (18e6, 16e6),
}
SIZES = (16, 48, 144, 2000)
SEEN = 416
"""What is seen of the largest size: 52 steps of 8 examples."""
Law = Callable[[float, float, float, float], float]
"""Loss from model parameters, pretraining tokens, the method's amount and data size."""


def multiplicative(a: float, alpha: float, gamma: float, beta: float, delta: float = 0.0) -> Law:
    def loss(parameters: float, tokens: float, amount: float, size: float) -> float:
        scale = (parameters / 5e6) ** -alpha * (tokens / 4e6) ** -gamma * max(amount, 1) ** -delta
        return 0.2 + a * scale * size**-beta

    return loss


def additive(parameters: float, tokens: float, amount: float, size: float) -> float:
    return 0.2 + 1.5 * (parameters / 5e6) ** -0.9 + (tokens / 4e6) ** -0.5 + 40 * size**-0.9


# Full finetuning overtakes LoRA at (8 / 5) ** (1 / 0.1) = 110 examples, whatever the model.
PLANTED: dict[str, Law] = {
    "full": multiplicative(8.0, 0.4, 0.1, 0.25),
    "lora": multiplicative(5.0, 0.4, 0.1, 0.15, delta=0.01),
}
CROSSING = 110.0


def planted_runs(laws: dict[str, Law], tasks: tuple[str, ...] = ("one",), noise: float = 0.003) -> list[Run]:
    """The plan in small: two methods, LoRA at three ranks, every model and size."""
    draw = np.random.default_rng(0)
    runs: list[Run] = []
    for task in tasks:
        for name, (parameters, tokens) in MODELS.items():
            for method, amount in (("full", 0), ("lora", 2), ("lora", 8), ("lora", 32)):
                for size in SIZES:
                    loss = laws[method](parameters, tokens, amount, min(size, SEEN))
                    loss *= float(np.exp(noise * draw.normal()))
                    runs.append(_run(len(runs), task, name, method, amount, size, loss))
    return runs


def _run(
    number: int, task: str, name: str, method: str, amount: int, size: int, loss: float, **changes: Any
) -> Run:
    parameters, tokens = MODELS[name]
    model = sample_model(
        name, parameters=int(parameters), embedding_parameters=10**6, pretraining_tokens=int(tokens)
    )
    given = {"learning_rate": 1e-3, "per_device_train_batch_size": 8}
    # The end of the curve is overfitted: its lowest point is the one before.
    curve = (sample_point(8, 2 * loss), sample_point(32, loss), sample_point(64, 1.5 * loss))
    run = sample_run(
        number,
        session="study",
        dataset=sample_dataset(task),
        task=Task(task, name),
        model=model,
        pipeline=Pipeline(method, given | ({"lora_r": amount, "lora_alpha": 2 * amount} if amount else {})),
        unique_examples=size,
        total_steps=52,
        curve=curve,
        test=sample_score(loss, loss_low=0.98 * loss, loss_high=1.02 * loss),
    )
    return replace(run, **changes)


def test_the_planted_exponents_and_their_order_are_found() -> None:
    cells = design.read_cells(planted_runs(PLANTED))
    found = findings.measure_exponents(cells, "test")
    for method in ("full", "lora"):
        for factor in (design.MODEL, design.EQUAL):
            assert np.median(found[factor.name, method, "one"].draws) == pytest.approx(0.4, abs=0.1)
        for factor in (design.PRETRAINING, design.UNANNEALED):
            assert np.median(found[factor.name, method, "one"].draws) == pytest.approx(0.1, abs=0.04)
    assert np.median(found[design.PEFT.name, "lora", "one"].draws) < 0.05
    assert found["data", "full", "one"].change < 0
    first = study.verdicts_on_exponents(found)[0]
    assert "in 2 of 2 (method, task) groups (clearly above in 2, clearly below in 0)" in first


def test_what_does_not_lower_the_loss_is_said_to() -> None:
    laws = {name: multiplicative(5.0, -0.2, 0.1, 0.15) for name in PLANTED}
    found = findings.measure_exponents(design.read_cells(planted_runs(laws)), "test")
    lines = [line for line in study.verdicts_on_exponents(found) if "A doubling of model, last" in line]
    assert len(lines) == 2
    assert all("clearly lower in 0, clearly higher in 1" in line for line in lines)


@pytest.mark.parametrize(("law", "winner"), [(None, "joint"), (additive, "additive")])
def test_the_law_that_was_planted_predicts_best(
    law: Law | None,
    winner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (findings, study):
        monkeypatch.setattr(module, "RIVALS", ("joint", "additive", "nearest"))  # the pooled law takes longer
    laws = PLANTED if law is None else {"full": law, "lora": law}
    scores = findings.backtests(design.read_cells(planted_runs(laws, ("one", "two"), noise=0.001)), "test")
    errors = {name: np.mean([score.errors[name] for score in scores]) for name in ("joint", "additive")}
    assert min(errors, key=lambda name: errors[name]) == winner
    verdict = study.verdict_on_laws(scores).splitlines()[0]
    assert verdict.endswith(f"the multiplicative law is {'better' if winner == 'joint' else 'worse'}.")


def test_what_is_held_out_reaches_no_law() -> None:
    cells = design.read_cells(planted_runs(PLANTED))
    table = design.factor_table(cells, design.PRETRAINING, "lora", "one", "test")
    for hide_size, hide_factor in findings.HELD_OUT.values():
        visible, targets = findings.hold_out(table, hide_size, hide_factor)
        seen = {
            (curve.labels["method"], curve.factors[design.SLOT], size)
            for curve in visible.curves
            for size in curve.data_sizes
        }
        assert not seen & {(target.family, target.factor, target.data_size) for target in targets}
        assert not hide_size or SEEN not in {size for _, _, size in seen}
        assert not hide_factor or 16e6 not in {factor for _, factor, _ in seen}
    assert {(target.factor, target.data_size) for target in targets} == {(16e6, SEEN)}  # of both: the corner


def test_the_planted_crossing_is_found() -> None:
    cells = design.read_cells(planted_runs(PLANTED))
    found = findings.crossings(cells, "test")["one"]
    assert len(found) == len(MODELS)
    for crossing in found:
        (root,) = crossing.roots
        assert root.low / 1.3 < CROSSING < root.high * 1.3
        assert root.better_above.startswith("full")
    pairs = study.show_crossovers({"one": found})
    assert f"full / lora: a crossing in {len(MODELS)} of {len(MODELS)} settings (full is better" in pairs


def test_a_method_that_always_wins_is_named() -> None:
    laws = {"full": PLANTED["full"], "lora": lambda *x: 2 * PLANTED["full"](*x)}
    shown = study.show_crossovers(findings.crossings(design.read_cells(planted_runs(laws)), "test"))
    assert f"Better everywhere in range: full in {len(MODELS)}." in shown


def test_early_stopping_takes_the_lowest_point_and_the_end_the_test_loss() -> None:
    run = planted_runs(PLANTED)[0]
    (cell,) = design.read_cells([replace(run, test=sample_score(7.0))])
    assert cell.losses == {"test": 7.0, "stopped": pytest.approx(run.curve[1].validation.loss)}


def test_data_size_is_what_was_seen() -> None:
    sizes = {cell.planned: cell.data_size for cell in design.read_cells(planted_runs(PLANTED))}
    assert sizes == {16: 16, 48: 48, 144: 144, 2000: SEEN}


def test_incomplete_curves_and_failed_runs_are_left_out_and_counted() -> None:
    runs = planted_runs(PLANTED)
    runs[0] = replace(runs[0], outcome=Outcome.DIVERGED)
    cells = design.read_cells(runs)
    complete = design.complete_curves(cells)
    assert len(cells) == len(runs) - 1
    assert len(complete) == len(runs) - len(SIZES)
    shown = study.show_runs(runs, cells, complete)
    assert f"{len(runs) - 1} completed, 1 diverged" in shown
    assert "Of 28 curves over data size 27 are complete; 1 are left out" in shown
    # nano-1m is gone for full finetuning: the family of nano is not complete, that of micro is.
    table = design.factor_table(complete, design.PRETRAINING, "full", "one", "test")
    assert {curve.labels["method"] for curve in table.curves} == {"0 7000000"}


def test_one_command_writes_the_figures_between_the_markers(tmp_path: Path) -> None:
    url, page = str(tmp_path / "runs.sqlite"), tmp_path / "study.md"
    runs = [run for run in planted_runs(PLANTED) if run.task.model.startswith("nano")]
    runs = [run for run in runs if run.pipeline.hyperparameters.get("lora_r", 8) == 8]
    with Store.open(url) as store:
        store.put_all([*runs, replace(runs[0], id="other", session="another")])
    page.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    study.main(["--store", url, "--output", str(page)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("### Runs") == 1
    assert f"{len(runs)} runs" in text
    assert "old" not in text


def test_a_page_without_markers_is_not_touched(tmp_path: Path) -> None:
    page = tmp_path / "study.md"
    page.write_text("mine")
    with pytest.raises(SystemExit, match="markers"):
        study.insert(page, "new", "figures")
    assert page.read_text() == "mine"


def test_a_store_with_too_few_runs_says_so() -> None:
    text = study.study(planted_runs(PLANTED)[:3])
    assert "No family of three values of X is complete yet." in text
    assert "No two methods are complete on one model yet." in text


def test_the_page_holds_the_markers() -> None:
    page = (ROOT / "docs" / "scaling-study.md").read_text(encoding="utf-8")
    for name in ("figures", "checks"):
        assert page.index(f"<!-- {name}: begin -->") < page.index(f"<!-- {name}: end -->")


def test_the_change_per_doubling_needs_no_whole_curve() -> None:
    runs = [run for run in planted_runs(PLANTED) if run.unique_examples == 48]
    found = findings.measure_exponents(design.read_cells(runs), "test")
    effect = found[design.EQUAL.name, "full", "one"]
    assert effect.groups == 3  # as many as there are amounts of pretraining
    assert effect.high < 0
    assert not effect.draws.size
    assert "| full | one | - | - | - | - | - | - |" in study.show_exponents(found)
    assert ("data", "full", "one") not in found


def test_one_group_is_no_interval() -> None:
    runs = [r for r in planted_runs(PLANTED) if r.unique_examples == 48 and r.task.model.startswith("nano")]
    found = findings.measure_exponents(design.read_cells(runs), "test")
    lines = [
        line for line in study.verdicts_on_exponents(found) if "A doubling of pretraining changes" in line
    ]
    assert lines
    assert "of full by -" in lines[0]
    assert "clearly lower in 0, clearly higher in 0" in lines[0]


def test_winners_are_counted_at_their_own_size() -> None:
    runs = planted_runs(PLANTED)
    prompts = [
        replace(
            run,
            id=f"prompt-{run.id}",
            pipeline=Pipeline("prompt_tuning", {"num_virtual_tokens": 16, "per_device_train_batch_size": 8}),
            test=sample_score(9.0),
        )
        for run in runs
        if run.pipeline.method == "full" and run.unique_examples in (16, 2000)
    ]
    shown = study.show_winners(design.read_cells([*runs, *prompts]), "test")
    assert f"| smallest | 0 | {len(MODELS)} | 0 |" in shown
    assert f"| largest | {len(MODELS)} | 0 | 0 |" in shown
    assert "of 4" not in shown


def _compared(run: Run) -> bool:
    return run.pipeline.hyperparameters.get("lora_r", 8) == 8


def test_seeds_that_differ_by_a_known_factor_have_its_spread() -> None:
    first = [replace(run, seed=0) for run in planted_runs(PLANTED, noise=0.0) if _compared(run)]
    second = [
        replace(run, id=f"{run.id}-1", seed=1, session="study-seeds", test=sample_score(1.1 * run.test.loss))
        for run in first
        if run.test
    ]
    shown = study_checks.show_seeds([*first, *second])
    spread = 100 * np.log(1.1) / np.sqrt(2)
    settings = len(MODELS) * len(SIZES)
    assert f"| full | {settings} | {spread:.1f} | {spread:.1f} |" in shown
    assert f"| lora | {settings} | {spread:.1f} | {spread:.1f} |" in shown
    assert "several seeds yet" in study_checks.show_seeds(first)


def test_rates_are_compared_with_the_middle_one() -> None:
    def loss(size: int, rate: float) -> float:
        best = 1e-3 if size < 100 else 2e-3
        return 2.0 * min(size, SEEN) ** -0.25 * (1.0 + 0.05 * abs(np.log2(rate / best)))

    runs = [
        _run(
            number,
            *("one", "nano-16m", "full", 0, size, loss(size, rate)),
            session="study-rates",
            pipeline=Pipeline("full", {"learning_rate": rate, "per_device_train_batch_size": 8}),
        )
        for number, (size, rate) in enumerate(
            (size, rate) for size in SIZES for rate in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
        )
    ]
    (row,) = [line for line in study_checks.show_rates(runs).splitlines() if line.startswith("| full")]
    cells = row.split(" | ")
    assert cells[2] == "1, 1, 2, 2"
    assert cells[3] == "0.0, 0.0, 5.0, 5.0"
    tuned = 100 * (2**-0.25 - 1)
    assert cells[5].rstrip(" |") == f"{tuned:+.1f}"
    assert float(cells[4]) > tuned, "one rate for all sizes hides a part of what data bring"


def test_annealing_is_told_apart_from_pretraining() -> None:
    nano = [run for run in planted_runs(PLANTED, noise=0.0) if run.task.model.startswith("nano")]
    nano = [run for run in nano if _compared(run)]
    early = [run for run in nano if run.task.model != "nano-16m"]

    def worse(run: Run) -> Run:
        assert run.test
        return replace(run, test=sample_score(0.2 + 1.3 * (run.test.loss - 0.2)))

    def annealed(run: Run) -> Run:
        name = f"{run.task.model}-annealed"
        model = replace(run.model, name=name)
        return replace(run, id=f"{run.id}-a", task=Task("one", name), model=model, session="study-annealed")

    runs = [*(worse(run) if run in early else run for run in nano), *map(annealed, early)]
    shown = study_checks.checks(runs)
    (row,) = [line for line in shown.splitlines() if line.startswith("| full | one |") and "[" in line][-1:]
    without, low, high, whole, mixed = (float(cell.split(" [")[0]) for cell in row.split(" | ")[2:7])
    assert mixed < whole - 2.0, "annealing passes for pretraining where only the last checkpoint has it"
    assert min(low, high) <= whole <= max(low, high)
    assert without == pytest.approx(low, abs=0.5)


def test_the_encoder_decoder_stands_beside_its_decoder() -> None:
    decoder = [run for run in planted_runs(PLANTED, noise=0.0) if run.task.model == "nano-4m"]
    t5 = [
        replace(
            run,
            id=f"{run.id}-t",
            task=Task("one", study_checks.ENCODER_DECODER),
            session="study-t5",
            test=sample_score(0.8 * run.test.loss),
        )
        for run in decoder
        if run.test
    ]
    shown = study_checks.checks([*decoder, *t5])
    (row,) = [line for line in shown.splitlines() if line.startswith("| lora | one |") and "0.80" in line]
    _, _, data, peft, same_data, same_peft, ratios = row.strip("| ").split(" | ")
    assert (data, peft) == (same_data, same_peft)
    assert ratios == ", ".join(["0.80"] * len(SIZES))
    assert shown.count("Not run yet.") == 3


def test_the_page_has_the_tables_of_the_runs_beside_it(tmp_path: Path) -> None:
    page = ROOT / "docs" / "scaling-study.md"
    copy = tmp_path / page.name
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    study_checks.main(["--output", str(copy)])
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert "Not run yet." not in copy.read_text(encoding="utf-8")
