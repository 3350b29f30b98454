"""The final training: its length, its rate, and whole sessions with one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kills import committed
from sessions import IN_PROCESS, Finished, call_main, finish, unfinish
from tunecast.methods.space import BASELINE
from tunecast.records import FINAL_TRAINING, Pipeline, Point, Run
from tunecast.session.beside_search import BesideSearch
from tunecast.session.final_training import FinalTrainer
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.settings import SessionSettings
from tunecast.session.trial import RETRAINED, TAKEN_OVER, Trial
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.plan import HALVINGS
from tunecast.training.training_task import TrialSpec

pytestmark = pytest.mark.slow

FOUND = Pipeline(
    "lora", {**BASELINE.hyperparameters, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def trainer(
    prepared: PreparedTask, store: Store, folder: Path, settings: SessionSettings, **changes: object
) -> FinalTrainer:
    changed = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
    return FinalTrainer(
        "session", changed, prepared, OutputFolder(folder), store, RuntimeModel(1e-3, 0.5, 2.0)
    )


def winner(prepared: PreparedTask, epochs: float = 0.5) -> Trial:
    tokens = int(epochs * prepared.training_task.train_tokens)
    return Trial(TrialSpec("winner", FOUND, 0, tokens, 128, ""), prepared.training_task)


def test_so_many_epochs_are_planned_with_a_rate_for_their_steps(
    prepared: PreparedTask, store: Store, tmp_path: Path, settings: SessionSettings
) -> None:
    decides = trainer(prepared, store, tmp_path / "out", settings, final_training="epochs=4")
    short = winner(prepared)
    plan = decides.plan(short, 0.0, "seconds")
    assert plan.full_length_tokens == 4 * prepared.training_task.train_tokens
    (long,) = decides.laid_out(plan, short)
    assert long.plan.total_steps == pytest.approx(8 * short.plan.total_steps, abs=8)
    assert long.spec.pipeline.number("learning_rate") < FOUND.number("learning_rate")
    rest = {name: value for name, value in FOUND.hyperparameters.items() if name != "learning_rate"}
    assert rest.items() <= long.spec.pipeline.hyperparameters.items()
    assert decides.seconds(long) == pytest.approx(1e-3 * long.tokens_to_end + 7 * 0.5 + 2.0, rel=0.1)


def test_a_longer_run_has_the_points_that_its_length_affords(
    prepared: PreparedTask, store: Store, tmp_path: Path, settings: SessionSettings
) -> None:
    task = prepared.training_task
    prepared = replace(prepared, training_task=replace(task, subset=task.validation))
    decides = trainer(prepared, store, tmp_path / "out", settings, final_training="epochs=4")
    short = winner(prepared)
    plan = decides.plan(short, 0.0, "seconds")
    lengths = plan.full_length_tokens, plan.full_length_tokens // 8
    long, brief = (decides.laid_out(replace(plan, full_length_tokens=one), short)[0] for one in lengths)
    assert (long.spec.halvings, brief.spec.halvings) == (HALVINGS, (2,))


def test_a_rate_that_the_user_fixed_or_limited_stays_so(
    prepared: PreparedTask, store: Store, tmp_path: Path, settings: SessionSettings
) -> None:
    decides = trainer(prepared, store, tmp_path / "out", settings, final_training="epochs=4")
    for changes in ({"fixed": {"learning_rate": 1e-3}}, {"ranges": {"learning_rate": (1e-3, 1e-2)}}):
        limited = dataclasses.replace(decides, settings=dataclasses.replace(decides.settings, **changes))
        plan = limited.plan(winner(prepared), 0.0, "seconds")
        assert plan.pipeline is not None
        assert plan.pipeline["learning_rate"] == 1e-3


@pytest.mark.parametrize(("unit", "left"), [("tokens", 7000.0), ("seconds", 17.0)])
def test_within_the_budget_it_spans_what_is_left(
    prepared: PreparedTask, store: Store, tmp_path: Path, settings: SessionSettings, unit: str, left: float
) -> None:
    decides = trainer(prepared, store, tmp_path / "out", settings, final_training="budget")
    short = winner(prepared)
    (long,) = decides.laid_out(decides.plan(short, left, unit), short)
    seconds = decides.runtime_model.expected("lora", long.work_to_end, long.points_to_end, ends=True)
    least, spent = (0.85, long.tokens_to_end) if unit == "tokens" else (0.9, seconds)
    assert least * left < spent <= left * 1.03
    most = decides.laid_out(decides.plan(short, 1e9, unit), short)[0]
    assert most.spec.full_length_tokens == 3 * prepared.training_task.train_tokens, "as --epochs says"


def test_there_is_none_without_a_trained_winner_or_room(
    prepared: PreparedTask, store: Store, tmp_path: Path, settings: SessionSettings
) -> None:
    decides = trainer(prepared, store, tmp_path / "out", settings, final_training="budget")
    assert decides.plan(None, 1e9, "tokens").reason == "no trial beats the base model"
    for left in (0.0, 2000.0):
        plan = decides.plan(winner(prepared), left, "tokens")
        assert plan.pipeline is None
        assert plan.reason.startswith("it would hardly be longer than the winner's 2,")


FLAGS = (
    "--budget",
    "2-trials",
    "--strategy",
    "random",
    "--methods",
    "lora",
    "--no-forecast",
    "--epochs",
    "0.5",
)
RATES = ("--range", "learning_rate=5e-3:1e-2", "--fix", "per_device_train_batch_size=4")


@pytest.fixture(scope="module")
def longer(tiny_llama: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A session of two trials whose winner is trained for two epochs."""
    folder = tmp_path_factory.mktemp("final") / "out"
    return finish(folder, tiny_llama, toy_data, *FLAGS, *RATES, "--final-training", "epochs=2")


def is_final(run: Run) -> bool:
    return run.extra.items() >= FINAL_TRAINING.items()


def own_tokens(run: Run) -> int:
    """The tokens that a run was trained on beside those of the trial that it went on with."""
    return run.curve[-1].tokens_seen - int(run.extra.get(TAKEN_OVER, 0))


def own_points(run: Run) -> list[Point]:
    return [point for point in run.curve if point.tokens_seen > run.extra.get(TAKEN_OVER, 0)]


def final_run(folder: Path) -> Run:
    (found,) = (run for run in committed(folder) if is_final(run))
    return found


def test_the_winner_is_trained_for_longer_and_wins(longer: Finished) -> None:
    result, run = longer.result, final_run(longer.folder)
    losses = {name: score["loss"] for name, score in result["validation"].items()}
    assert result["winner"] == "final" == min(losses, key=lambda name: losses[name])
    assert result["training"]["final"]["epochs"] == 2
    assert not run.is_candidate
    assert run.test is not None
    assert len(run.curve) > 3
    delivered = json.loads((longer.folder / "best" / "pipeline.json").read_text())
    assert delivered["hyperparameters"] == run.pipeline.hyperparameters
    assert "outside the budget, about" in longer.messages
    assert "The final training won: lora" in (longer.folder / "report.html").read_text()


def test_it_is_outside_of_the_budget(longer: Finished) -> None:
    used = longer.result["budget"]["used_seconds"]
    assert {point.elapsed_seconds for point in own_points(final_run(longer.folder))} == {used}
    assert sum(run.is_candidate for run in committed(longer.folder)) == 2


def unfinished(longer: Finished, folder: Path, rate: float | None = None) -> None:
    """Copy a session as it was when its search had ended; with a rate, when that of the rest was chosen."""
    shutil.copytree(longer.folder, folder)
    shutil.rmtree(folder / "trials" / final_run(longer.folder).id)
    state = unfinish(folder, keep=3)
    if rate is None:
        del state["final"]
    else:
        state["final"]["pipeline"]["hyperparameters"]["learning_rate"] = rate
    (folder / "session.json").write_text(json.dumps(state))


def interrupted(longer: Finished, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Copy a session, interrupt its final training after two points, and return what it was by then."""
    unfinished(longer, folder)
    advance = BesideSearch._advance
    begun: list[int] = []

    def broken_off(beside: BesideSearch, trials: Trials, step: int) -> bool:
        begun.append(step)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return advance(beside, trials, step)

    with monkeypatch.context() as patch:
        patch.setattr(BesideSearch, "_advance", broken_off)
        code, _, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder))
    assert code == 130
    assert "--resume" in err
    half = final_run(folder)
    assert len(own_points(half)) == 2
    return half


def test_an_interrupted_one_is_resumed_exactly(
    longer: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    half = interrupted(longer, folder, monkeypatch)
    code, out, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder), "--json")
    assert code == 0, err[-3000:]
    whole, resumed = final_run(longer.folder), final_run(folder)
    assert resumed.curve[: len(half.curve)] == half.curve
    measured = [
        [(point.step, point.validation, point.train_loss, point.checkpoint_hash) for point in run.curve]
        for run in (whole, resumed)
    ]
    assert measured[0] == measured[1]
    assert json.loads(out)["test"] == longer.result["test"]


def test_a_larger_budget_does_not_take_an_interrupted_one_for_its_end(
    longer: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    half = interrupted(longer, folder, monkeypatch)
    assert half.curve[-1].share < 1
    again = ("--resume", "--budget", "3-trials", *IN_PROCESS, "--output-dir", str(folder))
    code, _, err = call_main("tune", *again)
    assert code == 0, err[-3000:]
    assert max(run.curve[-1].share for run in committed(folder) if is_final(run)) == 1.0


def test_it_goes_on_with_the_winner_as_if_it_had_begun_with_its_end_in_mind(
    longer: Finished, tmp_path: Path
) -> None:
    """Without the winner's checkpoint, the whole training begins from the base model, to the same end."""
    folder = tmp_path / "out"
    unfinished(longer, folder)
    for trial in (folder / "trials").iterdir():
        shutil.rmtree(trial)
    code, _, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder), "--json")
    assert code == 0, err[-3000:]
    whole, again = final_run(longer.folder), final_run(folder)
    assert RETRAINED not in whole.extra
    assert again.extra[RETRAINED] == whole.extra[TAKEN_OVER] > 0
    rates = [point.learning_rate for point in whole.curve]
    assert len(set(rates[:-1])) == 1
    assert rates[-1] < 0.3 * rates[0]
    hashes = [[point.checkpoint_hash for point in run.curve] for run in (whole, again)]
    assert hashes[0] == hashes[1]


def test_its_end_moves_to_where_the_seconds_are_over(
    tiny_llama: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that was planned three times too long still ends with a rate that has fallen."""
    affordable = FinalTrainer._affordable_tokens

    def first_too_many(self: FinalTrainer, trial: Trial, seconds: float) -> float:
        return affordable(self, trial, seconds) * (3 if trial.run and not is_final(trial.run) else 1)

    monkeypatch.setattr(FinalTrainer, "_affordable_tokens", first_too_many)
    flags = ("--budget", "16s", "--epochs", "99", "--final-training", "budget")
    done = finish(tmp_path / "out", tiny_llama, toy_data, *FLAGS, *RATES, *flags)
    runs = [run for run in committed(tmp_path / "out") if is_final(run)]
    assert len(runs) > 1
    first = max(runs, key=lambda run: run.full_length_tokens)
    last = max(runs, key=lambda run: run.curve[-1].share)
    assert first.curve[-1].share < 0.8
    assert last.curve[-1].share > 0.85
    assert last.curve[-1].learning_rate < 0.6 * first.curve[0].learning_rate
    assert first.curve[-1].checkpoint_hash in {point.checkpoint_hash for point in last.curve}
    assert done.result["budget"]["used_seconds"] < 20, "also on a busy machine"
    assert sum(map(own_tokens, runs)) == last.curve[-1].tokens_seen - min(r.extra[TAKEN_OVER] for r in runs)


def test_a_method_that_plans_by_its_length_begins_from_the_base_model(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = (*FLAGS, "--methods", "adalora", "--budget", "1-trials", "--final-training", "epochs=1")
    finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    run = final_run(tmp_path / "out")
    assert TAKEN_OVER not in run.extra
    assert run.curve[-1].share == 1.0


def test_a_final_training_without_a_point_of_its_own_does_not_compete(
    longer: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    unfinished(longer, folder)
    monkeypatch.setattr(BesideSearch, "_advance", lambda beside, trials, step: False)
    code, out, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder), "--json")
    assert code == 0, err[-3000:]
    assert "final" not in json.loads(out)["validation"]
    assert "The final training of the winner reached no point with a finite loss." in err


@pytest.mark.parametrize("damage", [{"goes_on_with": "none"}, {"from_step": 3}])
def test_a_damaged_plan_is_refused(longer: Finished, tmp_path: Path, damage: dict[str, object]) -> None:
    folder = tmp_path / "out"
    unfinished(longer, folder, rate=1e-3)
    state = json.loads((folder / "session.json").read_text())
    state["final"] |= damage
    (folder / "session.json").write_text(json.dumps(state))
    code, _, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder))
    assert code == 2
    assert "goes on with a point that was not measured" in err


def test_a_longer_training_that_is_worse_is_not_delivered(longer: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    unfinished(longer, folder, rate=1e-9)  # it learns nothing
    code, out, err = call_main("tune", "--resume", *IN_PROCESS, "--output-dir", str(folder), "--json")
    assert code == 0, err[-3000:]
    result = json.loads(out)
    assert result["winner"] in ("baseline", "incumbent")
    delivered = json.loads((folder / "best" / "pipeline.json").read_text())
    assert delivered["hyperparameters"]["learning_rate"] <= 1e-2
    losses = {name: score["loss"] for name, score in result["validation"].items()}
    assert losses["final"] > losses["incumbent"]


def test_within_a_budget_search_and_final_training_share_it(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--budget", "16k-tokens", "--epochs", "4", "--final-training", "budget")
    finish(tmp_path / "out", tiny_llama, toy_data, *FLAGS, *RATES, *flags)
    run = final_run(tmp_path / "out")
    tried = [one for one in committed(tmp_path / "out") if one.is_candidate and one.curve]
    searched = sum(one.curve[-1].tokens_seen for one in tried)
    assert 0 < searched <= 8000
    assert len(tried) > 2, "trials are sized for the half of the budget that is searched with"
    assert run.full_length_tokens > 3 * tried[0].full_length_tokens
    assert 0.85 * 16_000 < searched + own_tokens(run) <= 16_000
    assert run.curve[-1].share == 1.0


@pytest.mark.parametrize(("epochs", "is_trained"), [("0.9", False), ("2", True)])
def test_what_a_final_training_does_not_need_is_searched_with(
    epochs: str, is_trained: bool, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--budget", "30k-tokens", "--epochs", epochs)
    finish(tmp_path / "out", tiny_llama, toy_data, *FLAGS, *RATES, *flags)
    runs = [run for run in committed(tmp_path / "out") if run.curve]
    final = [own_tokens(run) for run in runs if is_final(run)]
    searched = sum(run.curve[-1].tokens_seen for run in runs if run.is_candidate)
    assert len(final) == is_trained, "a training that is hardly longer than a trial's is none"
    assert searched > 15_000
    assert 0.85 * 30_000 < searched + sum(final) <= 30_000


def test_a_larger_budget_counts_all_that_was_spent_before(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    """The final training of the smaller budget is over, and its tokens are, with those trained once more."""
    folder = tmp_path / "out"
    flags = ("--budget", "16k-tokens", "--epochs", "4", "--final-training", "budget")
    finish(folder, tiny_llama, toy_data, *FLAGS, *RATES, *flags)
    with Store.open(folder / "runs.sqlite") as store:
        before = next(run for run in store.runs() if is_final(run))
        store.put(replace(before, extra={**before.extra, RETRAINED: 5000}))
    code, _, err = call_main(
        "tune", "--resume", "--budget", "40k-tokens", *IN_PROCESS, "--output-dir", str(folder)
    )
    assert code == 0, err[-3000:]
    runs = [run for run in committed(folder) if run.curve]
    assert sum(run.is_beside_search for run in runs) == 2
    spent = 5000 + sum(map(own_tokens, runs))
    assert 0.85 * 40_000 < spent <= 40_000
    plan = json.loads((folder / "session.json").read_text())["final"]
    assert plan["goes_on_with"] == before.id, "what the smaller budget trained is not trained again"


@pytest.mark.parametrize(("budget", "scorings"), [("17k-tokens", 2), ("16000-tokens", 1)])
def test_hardly_more_budget_does_not_lose_the_final_training(
    budget: str, scorings: int, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    flags = ("--budget", "16k-tokens", "--epochs", "4", "--final-training", "budget")
    before = finish(folder, tiny_llama, toy_data, *FLAGS, *RATES, *flags).result
    assert before["winner"] == "final"
    code, out, err = call_main(
        "tune", "--resume", "--budget", budget, *IN_PROCESS, "--output-dir", str(folder), "--json"
    )
    assert code == 0, err[-3000:]
    after = json.loads(out)
    assert after["winner"] == "final"
    assert after["validation"]["final"]["loss"] == before["validation"]["final"]["loss"]
    assert json.loads((folder / "session.json").read_text())["record"]["test_scorings"] == scorings
