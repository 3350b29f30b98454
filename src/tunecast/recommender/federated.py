"""Recommends a federated method for a number of clients: quality, traffic, seconds and memory of each."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.federated.method import FederatedMethod
from tunecast.federated.registry import federated_method
from tunecast.federated.settings import FEDKSEED, SLORA, FederatedSettings
from tunecast.methods import BASELINE
from tunecast.predictor import Prior
from tunecast.predictor.prediction import NORMAL_90
from tunecast.predictor.quality import Trial
from tunecast.recommender.costs import Costs
from tunecast.recommender.federated_study import VARIANTS, Federation, Study, study_of_package
from tunecast.recommender.question import Question, Situation
from tunecast.recommender.recommendation import ZeroShotLoss, predicted_zero_shot
from tunecast.records import ModelFacts, Pipeline

DRAW_SECONDS = 7e-9
"""Seconds to draw and add one entry of a FedKSeed direction on a CPU: measured on one core, for 2 and 50
million entries alike. A second core does not help."""
PARAMETER_BYTES = 4
"""Bytes of a parameter in memory: a federation trains in float32."""


@dataclass(frozen=True)
class FederatedProspect:
    """The predicted result and cost of a federated method.

    Args:
        variant: Name in :data:`VARIANTS`.
        kept: Share of the centralised gain, with its 90% interval.
        predicted_loss: Loss on held-out data in nats per label token, with its 90% interval.
        round_bytes: Bytes that a client receives and sends in a round, the mean of all rounds.
        total_bytes: Bytes of all rounds and clients.
        seconds: Seconds that a client computes, on the target, with their 90% interval.
        memory_gb: Peak of a client in 10^9 bytes.
        fits: Whether a client's device holds that.
        flags: Options of ``tunecast federate`` that the prediction holds for.
    """

    variant: str
    kept: float
    kept_low: float
    kept_high: float
    predicted_loss: float
    low: float
    high: float
    round_bytes: float
    total_bytes: float
    seconds: float
    seconds_low: float
    seconds_high: float
    memory_gb: float
    fits: bool
    flags: str


@dataclass(frozen=True)
class FederatedRecommendation:
    """Federated methods for a model, a dataset and clients, the largest share of the gain first.

    Args:
        target: A client's machine.
        centralised_loss: Predicted loss of LoRA on all data in one place, with a pass for each round.
        studied: What the shares were learned from, as one sentence.
    """

    model: str
    dataset: str
    target: str
    federation: Federation
    prospects: tuple[FederatedProspect, ...]
    zero_shot_loss: ZeroShotLoss
    centralised_loss: float
    studied: str
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


def recommend_federated(
    question: Question,
    situation: Situation,
    federation: Federation,
    prior: Prior,
    measured: ZeroShotLoss | None = None,
) -> FederatedRecommendation:
    """Compare the federated methods for a situation.

    Args:
        question: Only its model counts; what it says about a single training is not used.
        situation: Its dataset stands for the data of all clients together, its target for a client's machine.
        measured: Measured loss of the base model; None predicts it.

    Raises:
        ConfigurationError: There are fewer examples than clients.
    """
    examples = situation.task.unique_examples
    if federation.clients > examples:
        raise ConfigurationError(
            f"--federated {federation.clients}: --data has only {examples:,} training examples.",
            "Give data of the size that all clients have together.",
        )
    asked = _Asked(question, situation, federation, prior, measured)
    study = study_of_package()
    prospects = [asked.prospect(variant, study) for variant in possible(federation)]
    prospects.sort(key=lambda one: (-one.kept, one.total_bytes))
    return FederatedRecommendation(
        model=situation.task.model.name,
        dataset=situation.task.dataset.name,
        target=situation.target.name,
        federation=federation,
        prospects=tuple(prospects),
        zero_shot_loss=asked.zero_shot,
        centralised_loss=asked.centralised.loss,
        studied=study.described,
        warnings=(*situation.warnings, *_left_out(federation), *study.beyond(federation)),
    )


def possible(federation: Federation) -> list[str]:
    """Return the variants that have rounds for all of their stages."""
    return [name for name, values in VARIANTS.items() if values["method"] != SLORA or federation.rounds > 1]


def _left_out(federation: Federation) -> list[str]:
    names = [name for name in VARIANTS if name not in possible(federation)]
    return [f"{name} is left out: its two stages need at least 2 rounds." for name in names]


class _Asked:
    """One question, with what all methods have in common."""

    def __init__(
        self,
        question: Question,
        situation: Situation,
        federation: Federation,
        prior: Prior,
        measured: ZeroShotLoss | None,
    ) -> None:
        self._question, self._situation, self._federation = question, situation, federation
        self._model = situation.task.model
        self._costs = Costs(
            self._model,
            situation.lengths,
            situation.target,
            situation.config,
            prior.efficiency,
            dtype="float32",
        )
        task = replace(situation.task, zero_shot_loss=measured.value if measured else None)
        self.zero_shot = measured or predicted_zero_shot(prior.quality, task)
        settings = self._settings("fedavg-lora")
        pipeline = federated_method(settings).pipeline(self._model)
        tokens = federation.rounds * situation.lengths.train_tokens
        steps = math.ceil(federation.rounds * task.unique_examples / settings.batch_size)
        trial = Trial(replace(task, full_length_tokens=round(tokens)), pipeline, steps)
        self.centralised = prior.quality.predict([trial]).predictions()[0]

    def _settings(self, variant: str) -> FederatedSettings:
        asked = self._federation
        return FederatedSettings(
            *(self._question.model, "", ""),
            rounds=asked.rounds,
            clients=asked.clients,
            share=asked.share,
            max_length=self._situation.lengths.max_length,
            device=self._situation.target.machine.device,
            **VARIANTS[variant],
        )

    def prospect(self, variant: str, study: Study) -> FederatedProspect:
        """Predict one method."""
        settings, asked = self._settings(variant), self._federation
        method = federated_method(settings)
        kept, low, high = study.kept(variant, asked)
        start, end = self.zero_shot, self.centralised
        corners = [
            before - part * (before - after)
            for before in (start.low, start.high)
            for part in (low, high)
            for after in (end.low, end.high)
        ]
        moved = client_bytes(method, self._model)
        seconds, deviation, held = self._client_cost(method)
        named = {name: getattr(settings, name) for name in ("rounds", "share", "max_length", "device")}
        return FederatedProspect(
            variant=variant,
            kept=kept,
            kept_low=low,
            kept_high=high,
            predicted_loss=start.value - kept * (start.value - end.loss),
            low=min(corners),
            high=max(corners),
            round_bytes=moved / asked.rounds,
            total_bytes=float(moved * asked.trained),
            seconds=seconds,
            seconds_low=seconds * math.exp(-NORMAL_90 * deviation),
            seconds_high=seconds * math.exp(NORMAL_90 * deviation),
            memory_gb=held / 1e9,
            fits=held <= self._costs.limit_bytes,
            flags=" ".join(
                f"--{name.replace('_', '-')} {value}"
                for name, value in {**VARIANTS[variant], **named}.items()
            ),
        )

    def _client_cost(self, method: FederatedMethod) -> tuple[float, float, int]:
        """Return the seconds that a client computes on average, their log deviation, and its bytes."""
        settings, asked = method.settings, self._federation
        cost = self._costs.of(method.pipeline(self._model))
        part = asked.trained_share
        if settings.method == FEDKSEED:
            on_cpu = self._situation.target.machine.device == "cpu"
            drawn = part * rebuilt_directions(settings, asked.trained) * self._model.parameters
            seconds = part * asked.rounds * settings.steps * cost.step_seconds
            # The base stays beside the weights that are rebuilt on a copy of it.
            held = cost.bytes + PARAMETER_BYTES * self._model.parameters
            return seconds + on_cpu * drawn * DRAW_SECONDS, cost.deviation, held
        examples = math.ceil(self._situation.task.unique_examples / asked.clients)
        steps = part * math.ceil(settings.local_epochs * examples / settings.batch_size)
        if settings.method == SLORA:
            sparse = self._costs.of(_whole(method.pipeline(self._model)))
            later = asked.rounds - settings.first_rounds
            seconds = steps * (settings.first_rounds * sparse.step_seconds + later * cost.step_seconds)
            return seconds, cost.deviation, max(cost.bytes, sparse.bytes)
        return steps * asked.rounds * cost.step_seconds, cost.deviation, cost.bytes


def client_bytes(method: FederatedMethod, model: ModelFacts) -> int:
    """Return the bytes that a client receives and sends if it trains in all rounds."""
    rounds = method.settings.rounds
    first = method.first_delivered - 1  # rounds of a stage that is not delivered
    moved = [(first, method.traffic(model, 1)), (rounds - first, method.traffic(model, rounds))]
    return sum(count * (traffic.down + traffic.up) for count, traffic in moved)


def rebuilt_directions(settings: FederatedSettings, trained: int) -> float:
    """Return how many FedKSeed directions a client draws to rebuild the weights, over all rounds.

    After n steps of all clients together, expect ``K * (1 - (1 - 1/K)^n)`` of the K to have a scalar.

    Args:
        trained: Clients that train in a round.
    """
    each = settings.steps * trained
    untouched = 1 - 1 / settings.seeds
    return sum(settings.seeds * (1 - untouched ** (each * done)) for done in range(settings.rounds))


def _whole(pipeline: Pipeline) -> Pipeline:
    """Return full finetuning with the batch of a pipeline."""
    return Pipeline("full", {**BASELINE.hyperparameters, **pipeline.hyperparameters})
