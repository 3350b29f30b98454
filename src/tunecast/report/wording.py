"""Wording that report, card and terminal share: names of contenders, pipelines in one line, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunecast.records import ZERO_SHOT, Pipeline, Run, Scalar, Score
from tunecast.report.numbers import decimal, duration, finite, rate, with_interval
from tunecast.results import Contender, SessionRecord
from tunecast.search import find_strategy

if TYPE_CHECKING:
    from tunecast.recommender.recommendation import Prospect

CONTENDER_NAMES = {"zero_shot": "zero-shot", "baseline": "baseline", "incumbent": "incumbent"}
"""Names of contenders in text."""


@dataclass(frozen=True)
class Headline:
    """The winner, in words.

    Args:
        text: One short sentence.
        sentences: The scores that chose it, its margin on the test split, how certain that is, and its cost.
    """

    text: str
    sentences: tuple[str, ...]


def pipeline_line(pipeline: Pipeline) -> str:
    """Method, learning rate, batch size and rank: enough to tell pipelines apart at a glance."""
    values = pipeline.hyperparameters
    if pipeline.method == ZERO_SHOT.method:
        return "no training"
    parts = [pipeline.method, f"rate {rate(pipeline.learning_rate)}"]
    parts.append(f"batch {values.get('per_device_train_batch_size', '?')}")
    if "lora_r" in values:
        parts += [f"r={values['lora_r']}", f"alpha={values.get('lora_alpha', '?')}"]
    return ", ".join(parts)


def value_text(name: str, value: Scalar) -> str:
    """Write a hyperparameter's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return rate(value) if name.endswith("learning_rate") else f"{value:.6g}"
    return str(value)


def describe_pipeline(pipeline: Pipeline, separator: str = ", ") -> str:
    """Write a method and all its hyperparameters in one line."""
    parts = [f"{name} {value_text(name, value)}" for name, value in pipeline.hyperparameters.items()]
    return separator.join([pipeline.method, *parts])


def verdict(record: SessionRecord, runs: Sequence[Run]) -> Headline:
    """Put the outcome of a session in words."""
    winner = record.find_contender(record.winner)
    cost = _cost(record, runs)
    if winner is None or finite(winner.test.loss) is None:
        return Headline("No model could be delivered", ("No contender has a test score to compare.", cost))
    others = [one for one in record.contenders if one.name != winner.name and one.run != winner.run]
    judge = _Judge(record.objective)
    sentences = (
        judge.choice(winner, others),
        judge.test_score(winner),
        *(judge.compare(winner, other) for other in others),
        *test_disagreement(record),
        *judge.uncertainties(winner, others),
        cost,
    )
    return Headline(_headline(record, winner), sentences)


def test_disagreement(record: SessionRecord) -> tuple[str, ...]:
    """Say which contenders beat the winner on the test split; empty if none does."""
    if not record.ahead_on_test:
        return ()
    names = [CONTENDER_NAMES.get(name, name) for name in record.ahead_on_test]
    text = " and ".join(name if name == "zero-shot" else f"the {name}" for name in names)
    return (
        f"The test split disagrees with validation: there {text} {'score' if len(names) > 1 else 'scores'} "
        "better. Validation decides; the test split is only reported.",
    )


def _with_article(contender: Contender) -> str:
    name = CONTENDER_NAMES.get(contender.name, contender.name)
    return name if contender.name == "zero_shot" else f"the {name}"


def _headline(record: SessionRecord, winner: Contender) -> str:
    if winner.name == "zero_shot":
        return "Zero-shot won: no finetuning beat the untouched base model"
    strategy = find_strategy(record.strategy)
    searched = strategy is None or not strategy.trials
    baseline = record.find_contender("baseline")
    if winner.name == "baseline" or (baseline is not None and baseline.run == winner.run):
        return "The baseline won" + (": the search found nothing better" if searched else "")
    step = winner.pipeline.learning_rate
    what = "The search won" if searched else "Training helped"
    return f"{what}: {winner.pipeline.method}" + (f" at learning rate {rate(step)}" if step else "")


def _cost(record: SessionRecord, runs: Sequence[Run]) -> str:
    trials = [run for run in runs if run.is_candidate]
    failed = sum(run.outcome.is_failure for run in trials)
    count = "one trial" if len(trials) == 1 else f"{len(trials):,} trials"
    ended = f"; {'all' if failed == len(trials) else f'{failed:,}'} failed" if failed else ""
    return f"Cost: {duration(record.used_seconds)} for {count} on a budget of {record.budget}{ended}."


@dataclass(frozen=True)
class _Judge:
    """Compares by the objective: the loss, or the metric where it was measured."""

    objective: str

    def by_metric(self, *scores: Score) -> bool:
        return self.objective != "loss" and all(finite(score.metric) is not None for score in scores)

    def choice(self, winner: Contender, others: Sequence[Contender]) -> str:
        """Return the validation scores that chose the winner."""
        score = winner.validation
        if score is None:
            return "The test split chose this winner, as in Tunecast 0.1.0; its test score may be optimistic."
        examples = score.metric_examples if self.by_metric(score) else score.examples
        rivals = [
            f"{self._value(one.validation)} for {_with_article(one)}" for one in others if one.validation
        ]
        name = self.objective if self.by_metric(score) else "loss"
        against = f", against {' and '.join(rivals)}" if rivals else ""
        return f"Chosen on {examples:,} validation examples: {name} {self._value(score)}{against}."

    def _value(self, score: Score) -> str:
        return decimal(score.metric if self.by_metric(score) else score.loss)

    def test_score(self, winner: Contender) -> str:
        score = winner.test
        loss = f"Test loss {with_interval(score.loss, score.loss_low, score.loss_high)} nats per token"
        if finite(score.metric) is None:
            return f"{loss}; brackets hold 95% intervals."
        metric = (
            f"test {score.metric_name} {with_interval(score.metric, score.metric_low, score.metric_high)}"
        )
        ordered = (metric, loss) if self.by_metric(score) else (loss, metric)
        first, second = (text[0].upper() + text[1:] for text in ordered)
        return f"{first}, {second[0].lower() + second[1:]}; brackets hold 95% intervals."

    def compare(self, winner: Contender, other: Contender) -> str:
        """Return the winner's margin over another contender on the test split."""
        mine, theirs = winner.test, other.test
        name = _with_article(other)
        if self.by_metric(mine, theirs):
            gap = (mine.metric or 0.0) - (theirs.metric or 0.0)
            value = with_interval(theirs.metric, theirs.metric_low, theirs.metric_high)
            return f"{mine.metric_name}: {_margin(gap)} than {name}, {value}."
        if finite(theirs.loss) is None:
            return f"No finite test loss was measured for {name}."
        gap = mine.loss - theirs.loss
        share = f" ({abs(gap) / theirs.loss:.0%})" if theirs.loss > 0 else ""
        value = with_interval(theirs.loss, theirs.loss_low, theirs.loss_high)
        return f"Test loss: {_margin(gap, share)} than {name}, {value}."

    def uncertainties(self, winner: Contender, others: Sequence[Contender]) -> list[str]:
        """Name the differences that are not certain, and say why."""
        rivals = [one for one in others if finite(one.test.loss) is not None]
        overlaps = {_with_article(one): self.overlap(winner.test, one.test) for one in rivals}
        found = []
        if touching := [name for name, answer in overlaps.items() if answer]:
            names = " and ".join(touching)
            found.append(f"The 95% intervals of winner and {names} overlap: the difference is not certain.")
        if unknown := [name for name, answer in overlaps.items() if answer is None]:
            names = " and ".join(unknown)
            found.append(f"Without intervals, the difference to {names} may not be certain.")
        return found

    def overlap(self, mine: Score, theirs: Score) -> bool | None:
        """Whether two intervals overlap; None if one was not computed."""
        ends: tuple[float | None, ...] = (mine.loss_low, mine.loss_high, theirs.loss_low, theirs.loss_high)
        if self.by_metric(mine, theirs):
            ends = (mine.metric_low, mine.metric_high, theirs.metric_low, theirs.metric_high)
        known = [end for end in ends if end is not None and finite(end) is not None]
        return None if len(known) < 4 else known[0] <= known[3] and known[2] <= known[1]


def _margin(gap: float, share: str = "") -> str:
    return f"{decimal(abs(gap))}{share} {'higher' if gap > 0 else 'lower'}"


def prospect_cells(prospect: Prospect) -> list[str]:
    """Write a prediction as cells: gain, loss, interval, time, GB, money if there is a price, pipeline."""
    return [
        f"{prospect.relative_gain:+.0%}",
        f"{prospect.predicted_loss:.2f}",
        f"{prospect.low:.2f} to {prospect.high:.2f}",
        duration(prospect.seconds),
        f"{prospect.memory_gb:.1f}",
        *([] if prospect.money is None else [f"{prospect.money:.2f}"]),
        pipeline_line(prospect.pipeline),
    ]


def prospect_line(prospect: Prospect) -> str:
    """Write a prediction in one line."""
    gain, loss, ends, time, gigabytes, *rest = prospect_cells(prospect)
    return f"{gain} gain, loss {loss} ({ends}), {time}, {gigabytes} GB: {rest[-1]}"
