"""The tuning session: zero-shot, expert, search within the budget, the leader's end, forecast, comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunecast.errors import ModelError
from tunecast.progress import Progress
from tunecast.records import ZERO_SHOT, DataForecast, Outcome, Pipeline, Run, RunError, SessionRecord
from tunecast.search import GIVEN, ONLY_TRIALS, Context, Strategy, first_name, get_strategy, leader
from tunecast.session.allowance import Allowance
from tunecast.session.budget import Budget, Used
from tunecast.session.candidates import long_enough, within_context, worthwhile
from tunecast.session.compare import FINALISTS, compare
from tunecast.session.executor import Crash, LocalExecutor
from tunecast.session.folder import OutputFolder, disk_error
from tunecast.session.forecast import Part, Survey, Surveyor, end_loss, leading_trial
from tunecast.session.knowledge import prior_known, runs_known
from tunecast.session.opening import measure_full_length, score_base_model
from tunecast.session.pace import Pace
from tunecast.session.prepare import PreparedTask, Surroundings
from tunecast.session.requests import Advance, Broken, Request, UseValidation
from tunecast.session.rules import MOST_PASSED_OVER, is_probe
from tunecast.session.settings import SessionSettings
from tunecast.session.shared import affordable_validation, explosion_nats
from tunecast.session.status import session_status
from tunecast.session.trials import Trial, Trials
from tunecast.store import Store
from tunecast.training.bench import TrialSpec
from tunecast.training.runner import Measurement

__all__ = ["Session"]

CRASHES_FORGIVEN = 1


class Session:
    """One run of ``tunecast tune``.

    Args:
        settings: The resolved configuration.
        prepared: The task.
        folder: The locked output folder.
        store: Where runs are committed.
        executor: The workers.
        progress: Told how far everything is.
        state: What ``session.json`` holds, or is to hold once the session has begun.
        candidates: The pipelines that may be tried; the first is the expert pipeline.
        expert_fits: Whether memory holds the first; it is not trained otherwise, and there are others.
    """

    def __init__(
        self,
        settings: SessionSettings,
        prepared: PreparedTask,
        folder: OutputFolder,
        store: Store,
        executor: LocalExecutor,
        progress: Progress,
        state: Mapping[str, Any],
        candidates: Sequence[Pipeline],
        expert_fits: bool = True,
    ) -> None:
        self._settings = settings
        self._prepared = prepared
        self._folder = folder
        self._store = store
        self._executor = executor
        self._progress = progress
        self._budget = Budget.parse(settings.budget)
        self._state = dict(state)
        self._candidates = candidates
        self._expert_fits = expert_fits
        self._crashes: dict[tuple[int, int], int] = {}
        self._submitted: dict[int, float] = {}
        self._activity = ""
        self._survey: Survey | None = None

    def run(self) -> SessionRecord:
        """Run to the end, from wherever an earlier process left off.

        Raises:
            BudgetError: The budget does not suffice for a few steps.
            OutputError: The disk takes no more.
            ModelError: The base model cannot be loaded.
        """
        self._progress.start("Loading the base model")
        ready = self._executor.ready()
        self._surroundings = Surroundings(ready.machine, ready.versions)
        self._progress.finish(f"{ready.loading_seconds:.1f} s, outside the budget")
        self._known = runs_known(self._settings.strategy, self._store, self._id, self._progress)
        self._allowance = Allowance(self._budget, self._seconds_before())
        self._fix_full_length()
        self._use_validation()
        zero_shot = self._measure_zero_shot()
        self._lay_out_trials(zero_shot)
        if self._settings.forecast and self._settings.strategy != GIVEN:
            self._look_ahead()
        else:
            self._spend()
        self._save_state()
        used_seconds = self._allowance.elapsed()
        outlook = self._forecast(self._survey) if self._survey else None
        record = compare(
            self._settings,
            self._prepared,
            self._folder,
            self._store,
            self._trials,
            zero_shot,
            self.ask,
            self._progress,
            session=self._id,
            used_seconds=used_seconds,
            full_length_tokens=self._full_length,
            budget=self._budget,
        )
        return replace(record, forecast=outlook)

    def ask(self, request: Request) -> Any:
        """Let a worker answer; one crash is forgiven.

        Raises:
            OutputError: The disk takes no more.
            ModelError: The worker died again and again.
            RuntimeError: The worker cannot answer.
        """
        answer = self._answer(request)
        if isinstance(answer, Crash):
            raise ModelError(
                f"{answer.text.capitalize()}, {1 + CRASHES_FORGIVEN} times in a row.",
                "Free some memory and go on with --resume; what was measured so far is kept.",
            )
        return answer

    def _answer(self, request: Request) -> Any:
        """What a worker answers; a crash where it died again and again."""
        for _ in range(1 + CRASHES_FORGIVEN):
            answer = self._executor.call(request)
            if not isinstance(answer, Crash):
                break
        if isinstance(answer, Broken):
            self._raise_broken(answer)
        return answer

    @property
    def _id(self) -> str:
        return str(self._state["id"])

    def _seconds_before(self) -> float:
        """Seconds of the budget that earlier processes of this session used, as far as they could tell."""
        committed = [
            point.elapsed_seconds for run in self._store.runs(session=self._id) for point in run.curve
        ]
        return max([float(self._state.get("used_seconds", 0.0)), *committed])

    def _save_state(self) -> None:
        self._state["used_seconds"] = self._allowance.elapsed()
        self._folder.write_session(self._state)

    def _fix_full_length(self) -> None:
        """Fix every trial's horizon before the first one, and keep it for a resumed session."""
        if "full_length_tokens" not in self._state:
            bench = self._prepared.bench
            pipeline = self._candidates[0 if self._expert_fits else 1]
            spec = TrialSpec("speed", pipeline, self._settings.seed, 1, self._unique_examples(), "")
            found = measure_full_length(
                self._settings, bench, spec, self._allowance, self.ask, self._progress
            )
            self._state["full_length_tokens"] = found.tokens
            self._state["seconds_per_token"] = found.seconds_per_token
            self._save_state()
        self._full_length = int(self._state["full_length_tokens"])

    def _use_validation(self) -> None:
        """Choose the validation examples that the full length can afford, and tell every worker."""
        bench = self._prepared.bench
        subset, validation = affordable_validation(bench, self._full_length, self._settings.seed)
        self._prepared = replace(self._prepared, bench=replace(bench, subset=subset, validation=validation))
        self._executor.setup(UseValidation(subset, validation))

    def _measure_zero_shot(self) -> Run:
        """The run of the base model as it is."""
        base = self._laid_out([ZERO_SHOT], math.inf)
        if base[0].run is None:
            measured = score_base_model(base, self._prepared.bench, self.ask, self._progress)
            self._state["validation_seconds"] = measured.validation_seconds
            self._save_state()
            return base.record(0, measured, self._surroundings, self._allowance.elapsed())
        return base[0].run

    def _lay_out_trials(self, zero_shot: Run) -> None:
        start = zero_shot.curve[0].validation.loss
        limit = explosion_nats(start, self._prepared.bench.facts.vocabulary)
        context = self._context(start, zero_shot.curve[0].evaluation.wall)
        self._strategy: Strategy = get_strategy(self._settings.strategy, context)
        self._trials = self._laid_out(self._worth_trying(context), limit)
        self._trials[0].is_feasible = self._expert_fits
        speed, scoring = float(self._state["seconds_per_token"]), zero_shot.curve[0].evaluation.wall
        # A session of an earlier version did not keep how long scoring all validation examples took.
        self._pace = Pace(speed, scoring, float(self._state.get("validation_seconds", scoring)))
        self._trials.teach(self._pace)

    def _laid_out(self, pipelines: Sequence[Pipeline], limit: float) -> Trials:
        """Trials of these pipelines, with what an earlier process committed of them."""
        trials = Trials(
            self._id,
            self._prepared,
            pipelines,
            self._folder,
            self._store,
            seed=self._settings.seed,
            full_length_tokens=self._full_length,
            unique_examples=self._unique_examples(),
            workers=self._settings.workers,
            explosion_nats=limit,
        )
        trials.restore()
        return trials

    def _context(self, zero_shot_loss: float, evaluation_seconds: float) -> Context:
        """What a strategy that knows other tasks is told of this one, and of them."""
        return Context(
            dataset=self._prepared.dataset,
            model=self._prepared.bench.facts,
            full_length_tokens=self._full_length,
            unique_examples=self._unique_examples(),
            zero_shot_loss=zero_shot_loss,
            evaluation_seconds=evaluation_seconds,
            machine=self._surroundings.machine,
            value_minutes=self._settings.value,
            prior=prior_known(self._settings.strategy, self._settings.prior),
            runs=self._known,
        )

    def _worth_trying(self, context: Context) -> list[Pipeline]:
        """What the strategy is pinned to, and the candidates that suit this full length, and that it ranks
        highest where it knows other tasks.
        """
        pinned = ONLY_TRIALS.get(self._settings.strategy, 1)
        bench = self._prepared.bench
        examples = (*bench.train, *bench.validation, *bench.test)
        longest = max(example.tokens for example in examples)
        suiting = long_enough(
            within_context(self._candidates[pinned:], context=bench.facts.context, longest=longest),
            full_length_tokens=self._full_length,
            mean_tokens=bench.train_tokens / len(bench.train),
        )
        return [*self._candidates[:pinned], *worthwhile(self._settings.strategy, context, suiting)]

    def _unique_examples(self) -> int:
        available = len(self._prepared.bench.train)
        return min(self._settings.unique_examples or available, available)

    def _look_ahead(self) -> None:
        """Spend all but what a forecast needs, then measure for it; where nothing can be, spend the rest."""
        surveyor = Surveyor(self._id, self._prepared, self._store, self._allowance, self._pace)
        if "survey" not in self._state:
            self._hold_back(surveyor)
            self._spend()
            # Fixed before anything comes of it: a resumed session neither searches on nor chooses anew.
            self._state["survey"] = surveyor.survey(leading_trial(self._trials), self._used()).as_json()
            self._save_state()
        begun = self._state["survey"]
        leading = next((trial for trial in self._trials if trial.spec.run == begun["leading"]), None)
        self._survey = surveyor.again(leading, [Part(**part) for part in begun["parts"]], begun["reason"])
        self._allowance.hold_back(0)
        if self._survey.parts:
            self._measure_parts(self._survey)
        else:
            self._spend()

    def _hold_back(self, surveyor: Surveyor) -> None:
        """Keep the forecast's share from a search, as decided before the first trial."""
        if "held_back" not in self._state:
            searches = self._settings.strategy not in ONLY_TRIALS
            speed = float(self._state["seconds_per_token"])
            self._state["held_back"] = surveyor.to_hold_back(self._trials[0], speed) if searches else 0.0
            self._save_state()
        self._allowance.hold_back(self._state["held_back"])

    def _measure_parts(self, survey: Survey) -> None:
        """Train the leading pipeline on every part of its data, as far as the budget reaches."""
        self._activity = "Measuring what more data brings"
        trials = [trial for (trial,) in survey.parts]
        total = sum(trial.plan.tokens_at(trial.plan.total_steps) for trial in trials)
        self._progress.start(self._activity, total, "tokens")
        for part, trial in zip(survey.parts, trials, strict=True):
            self._show()
            if trial.run is None:
                price = self._allowance.price([trial], self._pace, self._pace.validation_seconds)
                if price > self._allowance.left(self._used()):
                    break
                self._measure_part(part)
            loss = end_loss(trial)
            ending = "failed" if loss is None else f"{loss:.3f}"
            note = f"{trial.spec.unique_examples:,} examples: {ending}"
            self._progress.advance(trial.plan.tokens_at(trial.plan.total_steps), note)
        self._progress.finish()

    def _measure_part(self, part: Trials) -> None:
        """Train one part's trial in one go and commit its end; one crash is forgiven."""
        trial = part[0]
        answer = self._answer(Advance(trial.spec, 0, trial.plan.total_steps))
        elapsed = self._allowance.elapsed()
        if isinstance(answer, Crash):
            part.fail(0, *_why(answer), self._surroundings, elapsed)
        else:
            part.record(0, answer, self._surroundings, elapsed)
        self._save_state()

    def _forecast(self, survey: Survey) -> DataForecast:
        """Fit and extrapolate, which takes seconds, outside the budget."""
        self._progress.start("Forecasting what more data would bring, outside the budget")
        outlook = survey.forecast(self._settings.seed)
        self._progress.finish(f"no forecast: {outlook.reason}" if outlook.reason else "")
        return outlook

    def _spend(self) -> None:
        """Train the first pipeline, search, and bring the leading trial to its end.

        With several workers one trains the first pipeline, and the others search meanwhile.
        """
        self._search()
        while self._finish_leader():
            self._search()  # with what was reserved for the leader and is left

    def _train(self, index: int, activity: str) -> None:
        """Bring one trial to its end, as far as the budget reaches."""
        self._activity = activity
        while self._is_open(index) and self._fits(index):
            self._advance_all({0: index})

    def _search(self) -> None:
        """Bring the first trial to its end, and let the strategy spend what no end is reserved for."""
        slots: dict[int, int] = {}
        while True:
            for slot in self._executor.idle():
                index = self._next()
                if index is None:
                    break
                slots[slot] = index
                self._submit(slot, index)
            if not slots:
                return
            self._collect(slots)

    def _finish_leader(self) -> bool:
        """Bring the trial that would end best towards its end; False where there was nothing to do."""
        index = leader(self._trials.history(self._pace))
        if index is None:
            return False
        before = self._trials[index].step
        self._train(index, "Finishing the leading trial")
        return self._trials[index].step > before

    def _next(self) -> int | None:
        """The first trial as long as it can go on; beside it, or after it, what the strategy chooses."""
        running = self._trials[0].running
        if self._is_open(0) and not running and self._fits(0):
            self._activity = f"Training the {first_name(self._settings.strategy)} pipeline"
            return 0
        if not running:
            self._activity = f"Searching ({self._settings.strategy})"
        return self._chosen()

    def _chosen(self) -> int | None:
        """What the strategy wants to advance; where that does not fit, what it wants instead."""
        passed_over: set[int] = set()
        while len(passed_over) < MOST_PASSED_OVER:
            history = self._trials.history(self._pace, passed_over)
            index = self._strategy(history, self._allowance.remaining(self._used(), self._full_length))
            if index is None or self._fits_search(index):
                return index
            passed_over.add(index)
        return None

    def _is_open(self, index: int) -> bool:
        trial = self._trials[index]
        return trial.outcome is Outcome.PAUSED and trial.next_step is not None

    def _fits(self, index: int, reserved: Trial | None = None) -> bool:
        """Whether the budget affords a trial's next step, and the end of a reserved one after it."""
        return self._allowance.fits(self._trials[index], reserved, self._used(), self._pace)

    def _fits_search(self, index: int) -> bool:
        """Whether the budget affords a step and still lets the first trial, or after it the leader, and one
        that is far on, end.
        """
        trial, used = self._trials[index], self._used()
        following = trial.next_step
        far_on = following is not None and not is_probe(trial.plan.share_at(following))
        if far_on and not self._allowance.affords_end(trial, used, self._pace):
            return False
        ahead = 0 if self._trials[0].running else leader(self._trials.history(self._pace))
        reserved = self._trials[ahead] if ahead not in (None, index) and self._is_open(ahead) else None
        # A leader that cannot end any more is no reason to leave the rest of the budget unused.
        if reserved is not None and not self._allowance.affords_end(reserved, used, self._pace):
            reserved = None
        return self._fits(index, reserved)

    def _used(self) -> Used:
        used = self._trials.used(self._allowance.elapsed())
        return sum((part.used(0.0) for part in self._survey.parts), used) if self._survey else used

    def _advance_all(self, slots: dict[int, int]) -> None:
        """Advance trials by one step each and wait for all of them."""
        for slot, index in slots.items():
            self._submit(slot, index)
        while slots:
            self._collect(slots)

    def _submit(self, slot: int, index: int) -> None:
        trial = self._trials[index]
        following = trial.next_step
        assert following is not None
        trial.running = True
        self._submitted[slot] = time.monotonic()
        self._show()
        self._executor.submit(slot, Advance(trial.spec, trial.step, following))

    def _collect(self, slots: dict[int, int]) -> None:
        """Commit what has come back; a crashed step is tried once more."""
        for slot, answer in self._executor.wait(timeout=1.0):
            index = slots.pop(slot)
            if isinstance(answer, Broken):
                self._raise_broken(answer)
            elif isinstance(answer, Crash):
                self._handle_crash(index, answer)
            else:
                self._commit(slot, index, answer)
        self._show()

    def _commit(self, slot: int, index: int, measured: Measurement) -> None:
        trial = self._trials[index]
        before = trial.curve[-1].tokens_seen if trial.curve else 0
        self._trials.record(index, measured, self._surroundings, self._allowance.elapsed())
        seconds = time.monotonic() - self._submitted[slot]
        self._pace.learn_from(trial.spec.pipeline.method, before, measured, seconds)
        self._save_state()
        ahead = leader(self._trials.history(self._pace))
        points = [(point.validation.loss, i) for i, t in enumerate(self._trials) if (point := t.best_point)]
        spare = {0, *(i for _, i in sorted(points)[:FINALISTS]), *(() if ahead is None else (ahead,))}
        for run in self._trials.limit_disk(self._settings.keep_gb * 1e9, spare):
            limit = f"--keep-gb {self._settings.keep_gb:g}"
            self._progress.log(f"Dropped the checkpoint of trial {run}: {limit}.")

    def _handle_crash(self, index: int, crash: Crash) -> None:
        trial = self._trials[index]
        trial.running = False
        key = (index, trial.step)
        self._crashes[key] = self._crashes.get(key, 0) + 1
        self._progress.log(f"{crash.text}; a new one is started.")
        if self._crashes[key] <= CRASHES_FORGIVEN:
            return
        self._trials.fail(index, *_why(crash), self._surroundings, self._allowance.elapsed())

    def _raise_broken(self, broken: Broken) -> None:
        if broken.system:
            raise disk_error(self._folder.path, broken.text)
        raise broken.error()

    def _show(self) -> None:
        status = session_status(self._trials.started, self._budget, self._used(), self._activity)
        self._progress.show(status)


def _why(crash: Crash) -> tuple[Outcome, RunError]:
    """What becomes of a trial whose worker died twice at the same step."""
    # The kernel ends the largest process when memory runs out; nobody else kills twice.
    outcome = Outcome.OUT_OF_MEMORY if crash.exit_code == -9 else Outcome.FAILED
    return outcome, RunError("WorkerCrash", crash.text)
