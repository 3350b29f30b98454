"""The simulated machine: a strategy spends a budget on recorded runs under an event clock.

No loss is predicted or interpolated. A step of a trial gives the point recorded at its end and takes the
seconds recorded for it. Only a step in which a trial failed has no recorded seconds: it is charged whole, at
the median rate of completed runs (:mod:`tunecast.replay.cases`).

A strategy sees what it sees in a session, through the same code (:mod:`tunecast.search`),
``expected_seconds`` included: they come from the session's own
:class:`~tunecast.session.runtime_model.RuntimeModel`, which starts from the baseline's recorded rate and
learns from the steps of this replay alone. Its choices obey the session's own rules
(:mod:`tunecast.session.rules`), and the leader is finished, as there, when the search is over. A session uses
upper bounds of seconds; the simulated machine knows the seconds.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunecast.records import Outcome, Point
from tunecast.replay.cases import Candidate, Case, Leg
from tunecast.search import History, Policy, Remaining, TrialView, leader, points_to_end
from tunecast.session.rules import choose
from tunecast.session.runtime_model import RuntimeModel

ROUNDING_SECONDS = 1e-9


@dataclass(frozen=True)
class Improvement:
    """A new incumbent: its time, and its normalised regret on the test split."""

    seconds: float
    regret: float


@dataclass(frozen=True)
class Replayed:
    """The outcome of one replay.

    Args:
        improvements: The incumbents; the first is the base model at 0 seconds.
        used_seconds: Simulated seconds until the last step or answer ended.
        busy_seconds: Simulated seconds of all steps, over all workers.
        thinking_seconds: Seconds that its answers took on this computer; the clock does not count them.
        exhausted: Whether every candidate came to its end, so that nothing was left to decide.
    """

    improvements: tuple[Improvement, ...]
    used_seconds: float
    asks: int
    thinking_seconds: float
    steps: int
    exhausted: bool
    busy_seconds: float = 0.0

    @property
    def regret(self) -> float:
        """Normalised regret of the last incumbent."""
        return self.improvements[-1].regret


def replay(
    case: Case,
    candidates: Sequence[Candidate],
    strategy: Policy,
    budget_seconds: float,
    *,
    workers: int = 1,
    thinking_seconds: float = 0.0,
) -> Replayed:
    """Spend a budget on a case as a strategy decides.

    As in a session, the first candidate is trained to its end before the strategy is asked; a second worker
    begins with the strategy's choice.

    The incumbent is the trial at full length with the lowest validation loss, or the base model while no
    trial is below it: only their test losses are recorded.

    Raises:
        RuntimeError: The strategy chose a trial that cannot be advanced.
    """
    return _Replay(case, candidates, strategy, budget_seconds, workers, thinking_seconds).run()


@dataclass
class _Trial:
    """A candidate's state in a replay."""

    candidate: Candidate
    done: int = 0
    running: bool = False
    curve: tuple[Point, ...] = ()
    outcome: Outcome = Outcome.PAUSED

    @property
    def next_leg(self) -> Leg | None:
        return self.candidate.legs[self.done] if self.done < len(self.candidate.legs) else None

    @property
    def share(self) -> float:
        return self.curve[-1].share if self.curve else 0.0

    @property
    def legs_left(self) -> int:
        return len(self.candidate.legs) - self.done

    @property
    def seconds_to_end(self) -> float:
        return sum(leg.seconds for leg in self.candidate.legs[self.done :])

    def view(self, expected_seconds: float, expected_end_seconds: float) -> TrialView:
        leg = self.next_leg
        return TrialView(
            self.candidate.pipeline,
            self.curve,
            leg.share if leg else None,
            self.outcome,
            self.running,
            expected_seconds,
            expected_end_seconds,
        )


@dataclass
class _Replay:
    case: Case
    candidates: Sequence[Candidate]
    strategy: Policy
    budget: float
    workers: int
    thinking: float
    now: float = 0.0
    asks: int = 0
    thought: float = 0.0
    steps: int = 0
    busy: float = 0.0
    under_way: list[tuple[float, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trials = [_Trial(candidate) for candidate in self.candidates]
        self.runtime_model = RuntimeModel(self.case.seconds_per_token, self.case.evaluation_seconds)
        self.rates: dict[str, tuple[float, float]] = {}
        # The base model costs nothing and may be better than all drawn candidates.
        self.best_test = min(self.case.start_loss, *(candidate.test_loss for candidate in self.candidates))
        self.best_validation = self.case.zero_shot.end_loss
        self.improvements = [Improvement(0.0, self._regret(self.case.start_loss))]
        self.idle = list(range(self.workers))

    def run(self) -> Replayed:
        self._search()
        while self._finish_leader():
            self._search()  # with the rest of the reserve for the leader
        exhausted = all(trial.next_leg is None for trial in self.trials)
        return Replayed(
            tuple(self.improvements), self.now, self.asks, self.thought, self.steps, exhausted, self.busy
        )

    def _search(self) -> None:
        while True:
            while self.idle:
                place = self._chosen()
                if place is None:
                    break
                self._start(place)
            if not self.under_way:
                return
            self._end_step()

    def _chosen(self) -> int | None:
        first = self.trials[0]
        if first.next_leg is not None and not first.running and self.fits(0):
            return 0
        return choose(self._ask, self._history(), self)

    def _ask(self, history: History, remaining: Remaining) -> int | None:
        """Ask the strategy; its answer is timed and charged."""
        before = time.perf_counter()
        place = self.strategy(history, remaining)
        self.thought += time.perf_counter() - before
        self.asks += 1
        self.now += self.thinking
        return place

    def remaining(self) -> Remaining:
        """Return the strategy's view of the budget."""
        left = max(0.0, self.budget - self.now)
        return Remaining(left / self.budget, left)

    def fits(self, place: int, reserved: int | None = None) -> bool:
        """Whether a trial's next step, and then the rest of a reserved trial, fit the budget."""
        leg = self.trials[place].next_leg
        assert leg is not None
        reserve = 0.0
        if reserved is not None:
            trial = self.trials[reserved]
            reserve = trial.seconds_to_end + self.thinking * trial.legs_left
        return leg.seconds + reserve <= self._left

    def affords_end(self, place: int) -> bool:
        """Whether a trial can finish within the budget, given that the answer for its next step is paid."""
        trial = self.trials[place]
        return trial.seconds_to_end + self.thinking * (trial.legs_left - 1) <= self._left

    @property
    def _left(self) -> float:
        return self.budget - self.now + ROUNDING_SECONDS

    def _finish_leader(self) -> bool:
        """Advance the trial that would end best as far as it can; False if there was nothing to do."""
        ahead = leader(self._history())
        if ahead is None:
            return False
        trial, advanced = self.trials[ahead], False
        while trial.next_leg and self.fits(ahead):
            self._start(ahead)
            self._end_step()
            advanced = True
        return advanced

    def _start(self, place: int) -> None:
        trial, worker = self.trials[place], self.idle.pop(0)
        leg = trial.next_leg
        assert leg is not None
        trial.running = True
        heapq.heappush(self.under_way, (self.now + leg.seconds, self.steps, worker, place))
        self.steps += 1
        self.busy += leg.seconds

    def _end_step(self) -> None:
        """Go on to the next end of a step, which may be in the past because answers take time."""
        ended, _, worker, place = heapq.heappop(self.under_way)
        self.now = max(self.now, ended)
        self.idle.append(worker)
        trial = self.trials[place]
        leg = trial.next_leg
        assert leg is not None
        trial.running = False
        trial.done += 1
        if leg.point is not None:
            trial.curve = (*trial.curve, leg.point)
            method = trial.candidate.pipeline.method
            self.runtime_model.learn(method, leg.tokens, leg.training_seconds, leg.other_seconds)
            self.rates.clear()
        if trial.next_leg is None:
            trial.outcome = trial.candidate.run.outcome
            self._judge(trial.candidate, ended)

    def _judge(self, candidate: Candidate, ended: float) -> None:
        # Steps are started only if they end within the budget, and events come in the order of their ends.
        if candidate.validation_loss < self.best_validation:
            self.best_validation = candidate.validation_loss
            self.improvements.append(Improvement(ended, self._regret(candidate.test_loss)))

    def _regret(self, test_loss: float) -> float:
        return (test_loss - self.best_test) / self.case.scale

    def _history(self) -> History:
        return History(tuple(trial.view(*self._expected(trial)) for trial in self.trials))

    def _expected(self, trial: _Trial) -> tuple[float, float]:
        """Return the expected seconds to the next point and to full length, whatever the recorded end."""
        method = trial.candidate.pipeline.method
        if method not in self.rates:  # a runtime model is linear in tokens
            overhead = self.runtime_model.expected(method, 0)
            self.rates[method] = (self.runtime_model.expected(method, 1) - overhead, overhead)
        rate, overhead = self.rates[method]
        leg = trial.next_leg
        if leg is None:
            return 0.0, 0.0
        tokens = (1.0 - trial.share) * self.case.full_length_tokens
        return overhead + rate * leg.tokens, points_to_end(leg.share) * overhead + rate * tokens
