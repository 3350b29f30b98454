"""The simulated machine, on recorded runs whose seconds and losses are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replay.made_up import pipelines, task_runs
from tunecast.records import Outcome
from tunecast.replay.cases import Candidate, Case, cases_of
from tunecast.replay.machine import replay
from tunecast.search import History, Policy, Remaining, asha, fixed, random_search


@pytest.fixture(scope="module")
def case() -> Case:
    return cases_of(task_runs("a"))[0][0]


def completed(case: Case) -> list[Candidate]:
    return [c for c in case.candidates if c.run.outcome is Outcome.COMPLETED]


def best(some: list[Candidate]) -> float:
    return min(candidate.test_loss for candidate in some)


def test_the_first_candidate_is_trained_first_and_every_one_takes_its_seconds(case: Case) -> None:
    some = completed(case)[:5]
    chosen = min(some[1:], key=lambda candidate: candidate.validation_loss)
    assert chosen.validation_loss < some[0].validation_loss
    done = replay(case, some, fixed(some.index(chosen)), 1e4)
    assert done.used_seconds == pytest.approx(some[0].seconds + chosen.seconds)
    assert done.steps == len(some[0].legs) + len(chosen.legs)
    ended = [(0.0, case.start_loss), (some[0].seconds, some[0].test_loss)]
    ended.append((some[0].seconds + chosen.seconds, chosen.test_loss))
    assert [one.seconds for one in done.improvements] == pytest.approx([seconds for seconds, _ in ended])
    regrets = [(loss - best(some)) / case.scale for _, loss in ended]
    assert [one.regret for one in done.improvements] == pytest.approx(regrets)


def test_where_no_candidate_is_better_the_base_model_has_no_regret(case: Case) -> None:
    failed = [c for c in case.candidates if c.run.outcome is Outcome.DIVERGED]
    assert replay(case, failed, random_search(), 1e4).regret == 0.0
    (some, *_) = completed(case)
    assert some.run.test is not None
    test = replace(some.run.test, loss=2 * case.start_loss)
    worse = replace(some, run=replace(some.run, test=test))
    done = replay(case, [worse], random_search(), 1e4)
    # Its validation loss is better, and so it is what the search ends with.
    assert [i.regret for i in done.improvements] == [0.0, pytest.approx(case.start_loss / case.scale)]


def test_exactly_the_budget_of_a_trial_suffices_and_less_does_not(case: Case) -> None:
    some = completed(case)[:3]
    assert len(replay(case, some, fixed(0), some[0].seconds).improvements) == 2
    assert len(replay(case, some, fixed(0), 0.99 * some[0].seconds).improvements) == 1


def test_the_clock_never_passes_the_budget(case: Case) -> None:
    for budget in (5.0, 40.0, 200.0):
        for strategy in (random_search(), asha()):
            done = replay(case, case.candidates, strategy, budget, workers=1)
            assert done.used_seconds <= budget + 1e-6
            assert [i.seconds for i in done.improvements] == sorted(i.seconds for i in done.improvements)


def test_a_strategy_sees_only_what_has_been_measured(case: Case) -> None:
    seen: list[History] = []

    def watching(history: History, remaining: Remaining) -> int | None:
        seen.append(history)
        return random_search()(history, remaining)

    replay(case, case.candidates, watching, 60.0)
    first, later = seen[0].trials, seen[4].trials
    assert first[0].curve == case.baseline.run.curve, "nobody is asked while the baseline is trained"
    assert all(not trial.curve and trial.expected_seconds for trial in first[1:])
    assert [trial.next_share for trial in first[1:]] == [c.legs[0].share for c in case.candidates[1:]]
    measured = [trial for trial in later if trial.curve]
    assert measured
    recorded = {candidate.pipeline.id: candidate.run.curve for candidate in case.candidates}
    assert all(recorded[t.pipeline.id][: len(t.curve)] == t.curve for t in measured)


def test_expected_seconds_start_from_the_baselines_rate_and_are_learned_from_steps(case: Case) -> None:
    expected: list[float | None] = []

    def watching(history: History, remaining: Remaining) -> int | None:
        expected.append(history.trials[0].expected_seconds)
        return None

    baseline, *others = completed(case)
    # The budget is too small for the baseline's first step, then only for its second.
    for budget in (0.5 * baseline.legs[0].seconds, baseline.legs[0].seconds + 1e-6):
        replay(case, [baseline, *others[:4]], watching, budget)
    scoring = case.zero_shot.curve[0].evaluation.wall
    assert expected[0] == pytest.approx(baseline.legs[0].training_seconds + scoring)
    assert expected[1] == pytest.approx(baseline.legs[1].seconds)  # a trial's own scoring is known by now


def test_what_a_trial_is_expected_to_take_says_nothing_of_how_it_ends(case: Case) -> None:
    seen: list[History] = []

    def watching(history: History, remaining: Remaining) -> int | None:
        seen.append(history)
        return None

    replay(case, case.candidates, watching, 60.0)
    same = {(c.pipeline.method, c.legs[0].share): set() for c in case.candidates}  # type: ignore[var-annotated]
    for candidate, trial in zip(case.candidates[1:], seen[0].trials[1:], strict=True):
        assert trial.expected_seconds is not None
        assert trial.expected_end_seconds is not None
        assert trial.expected_end_seconds >= trial.expected_seconds
        same[candidate.pipeline.method, candidate.legs[0].share].add(trial.expected_end_seconds)
    assert any(c.run.outcome is Outcome.DIVERGED for c in case.candidates)
    assert all(len(found) == 1 for found in same.values())


def test_failed_trials_cost_what_they_cost(case: Case) -> None:
    failed = [c for c in case.candidates if c.run.outcome is Outcome.DIVERGED][:2]
    some = [completed(case)[0], *failed]
    done = replay(case, some, random_search(), 1e4)
    assert done.used_seconds == pytest.approx(sum(candidate.seconds for candidate in some))
    assert len(done.improvements) == 2


def test_workers_run_side_by_side(case: Case) -> None:
    some = completed(case)[:4]
    alone, together = (replay(case, some, random_search(), 1e4, workers=count) for count in (1, 4))
    assert alone.used_seconds == pytest.approx(sum(c.seconds for c in some))
    assert together.used_seconds == pytest.approx(max(c.seconds for c in some))
    assert together.regret == alone.regret == 0.0 or together.regret == pytest.approx(alone.regret)


def test_thinking_is_an_explicit_term(case: Case) -> None:
    some = completed(case)[:3]
    plain = replay(case, some, random_search(), 1e4)
    thinking = replay(case, some, random_search(), 1e4, thinking_seconds=2.0)
    # The last answer, that nothing is left, comes after the last step.
    assert thinking.used_seconds >= plain.used_seconds + 2.0 * (plain.asks - 1)
    assert plain.thinking_seconds > 0


def one_step(candidate: Candidate, seconds: float) -> Candidate:
    """The same, all of whose points but the last were never measured."""
    last = candidate.legs[-1]
    return replace(candidate, legs=(replace(last, training_seconds=seconds, other_seconds=0.0),))


def test_what_ends_while_the_strategy_thinks_has_ended_when_it_did(case: Case) -> None:
    worse, better = sorted(completed(case)[1:3], key=lambda candidate: -candidate.validation_loss)
    some = [one_step(worse, 10.0), one_step(better, 8.0)]
    # The first begins unasked. Asked until 6, and again from 10, when it ends, to 16: the second ends at 14.
    done = replay(case, some, random_search(), 15.0, workers=2, thinking_seconds=6.0)
    assert [improvement.seconds for improvement in done.improvements] == [0.0, 10.0, 14.0]
    assert done.regret == pytest.approx((better.test_loss - best(some)) / case.scale)


def test_what_answers_on_the_way_take_is_kept_free_for_a_trial_that_is_to_end(case: Case) -> None:
    first, second = completed(case)[1:3]
    two_steps = replace(first, legs=first.legs[-2:])
    assert two_steps.legs[0].share > 0.25
    some = [two_steps, one_step(second, 0.9 * two_steps.seconds)]

    def in_order(history: History, remaining: Remaining) -> int | None:
        return next((i for i, trial in enumerate(history.trials) if trial.is_open), None)

    # Of one answer and a half nothing would be left for the second, and of what remained for neither trial.
    for answers in (1.5, 2.5):
        done = replay(case, some, in_order, two_steps.seconds + answers, thinking_seconds=1.0)
        assert len(done.improvements) == 2


@pytest.mark.parametrize("strategy", [random_search(), asha()])
def test_incumbents_come_in_the_order_of_time_however_long_answers_take(case: Case, strategy: Policy) -> None:
    done = replay(case, case.candidates, strategy, 200.0, workers=3, thinking_seconds=1.5)
    times = [improvement.seconds for improvement in done.improvements]
    assert len(times) > 2
    assert times == sorted(times)
    assert times[-1] <= 200.0 + 1e-6


def test_whether_nothing_was_left_to_decide_is_told(case: Case) -> None:
    failed = next(c for c in case.candidates if c.run.outcome is Outcome.DIVERGED)
    some = [*completed(case)[:3], failed]
    whole = sum(candidate.seconds for candidate in some)
    assert replay(case, some, random_search(), whole).exhausted
    assert not replay(case, some, random_search(), 0.9 * whole).exhausted
    assert not replay(case, some, fixed(0), whole).exhausted


def test_the_leader_is_brought_to_its_end(case: Case) -> None:
    baseline, *others = completed(case)
    some = [baseline, *sorted(others, key=lambda candidate: candidate.validation_loss)[:5]]

    def one_step_each(history: History, remaining: Remaining) -> int | None:
        return next((i for i, t in enumerate(history.trials) if t.is_open and not t.is_started), None)

    done = replay(case, some, one_step_each, 80.0)
    assert len(done.improvements) == 3
    finished = next(one for one in some if (one.test_loss - best(some)) / case.scale == done.regret)
    assert done.steps == len(baseline.legs) + 4 + len(finished.legs)


def test_no_other_code_than_a_sessions_strategies_is_run_and_a_wrong_choice_is_an_error(case: Case) -> None:
    with pytest.raises(RuntimeError, match="cannot be advanced"):
        replay(case, case.candidates, lambda history, remaining: 0, 10.0)


def test_a_base_model_that_nothing_beats_stays(case: Case) -> None:
    zero = replace(case.zero_shot, validation=None)
    point = zero.curve[0]
    lower = replace(point, validation=replace(point.validation, loss=0.01))
    unbeaten = replace(case, zero_shot=replace(zero, curve=(lower,)))
    done = replay(unbeaten, case.candidates[: len(pipelines()) // 2], random_search(), 500.0)
    assert len(done.improvements) == 1
