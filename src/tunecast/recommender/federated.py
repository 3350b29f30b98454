"""Recommends a federated method for a number of clients: quality, traffic, seconds and memory of each."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.estimate.constants import MAX_SHARE, MIN_SHARE
from tunecast.federated.method import FederatedMethod, number_drawn
from tunecast.federated.registry import federated_method
from tunecast.federated.settings import FederatedSettings, flag
from tunecast.methods import BASELINE
from tunecast.predictor import Prior
from tunecast.predictor.prediction import NORMAL_90
from tunecast.predictor.quality import Trial
from tunecast.ranges import check_range
from tunecast.recommender.costs import Costs
from tunecast.recommender.question import Question, Situation
from tunecast.recommender.recommendation import ZeroShotLoss, predicted_zero_shot
from tunecast.records import ModelFacts, Pipeline

STUDY = "federated_study.csv"
"""The package's table of shares by method, split and round; ``benchmarks/federated_study.py`` wrote it."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "fedavg-lora": {"method": "fedavg-lora"},
    "fedavg-lora, freeze-a": {"method": "fedavg-lora", "aggregation": "freeze-a"},
    "fedavg-lora, product": {"method": "fedavg-lora", "aggregation": "product"},
    "slora": {"method": "slora"},
    "fedkseed": {"method": "fedkseed", "seeds": 128, "steps": 25},
}
"""Settings of the methods that are compared, by the names that the study gives them."""
SKEWS: Mapping[str, float] = {"high": 0.1, "medium": 0.5, "low": 10.0}
"""How differently labels are spread over clients, as the concentration of a Dirichlet distribution."""
DRAW_SECONDS = 7e-9
"""Seconds to draw and add one entry of a FedKSeed direction on a CPU: measured on one core, for 2 and 50
million entries alike. A second core does not help."""
SHRINKAGE = 1.0
"""Ridge penalty on how a method differs from the others."""
PARAMETER_BYTES = 4
"""Bytes of a parameter in memory: a federation trains in float32."""


@dataclass(frozen=True)
class Federation:
    """What a user asks about.

    Args:
        clients: Number of clients.
        rounds: Rounds of training.
        share: Share of the clients that train in a round.
        skew: How differently labels are spread over the clients: ``low``, ``medium`` or ``high``.
    """

    clients: int
    rounds: int = 10
    share: float = 1.0
    skew: str = "medium"

    @property
    def trained(self) -> int:
        """Clients that train in a round."""
        return number_drawn(self.share, self.clients)

    def __post_init__(self) -> None:
        if self.clients < 2:
            raise ConfigurationError(
                f"--federated {self.clients}: a federation has at least 2 clients.",
                "Without --federated, recommend plans a training on one machine.",
            )
        check_range("clients", self.clients, called="--federated")
        check_range("rounds", self.rounds)
        check_range("share", self.share)
        if self.skew not in SKEWS:
            raise ConfigurationError(
                f"--skew {self.skew}: there is no such value.",
                f"{did_you_mean(self.skew, SKEWS)}Known: {', '.join(SKEWS)}.",
            )


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

    @property
    def memory_gb_low(self) -> float:
        """Lower end of the peak's 90% interval."""
        return MIN_SHARE * self.memory_gb

    @property
    def memory_gb_high(self) -> float:
        """Upper end of the peak's 90% interval."""
        return MAX_SHARE * self.memory_gb


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
    return [name for name, values in VARIANTS.items() if values["method"] != "slora" or federation.rounds > 1]


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
            flags=" ".join(f"{flag(name)} {value}" for name, value in {**VARIANTS[variant], **named}.items()),
        )

    def _client_cost(self, method: FederatedMethod) -> tuple[float, float, int]:
        """Return the seconds that a client computes on average, their log deviation, and its bytes."""
        settings, asked = method.settings, self._federation
        cost = self._costs.of(method.pipeline(self._model))
        part = asked.trained / asked.clients
        if settings.method == "fedkseed":
            on_cpu = self._situation.target.machine.device == "cpu"
            drawn = part * rebuilt_directions(settings, asked.trained) * self._model.parameters
            seconds = part * asked.rounds * settings.steps * cost.step_seconds
            # The base stays beside the weights that are rebuilt on a copy of it.
            held = cost.bytes + PARAMETER_BYTES * self._model.parameters
            return seconds + on_cpu * drawn * DRAW_SECONDS, cost.deviation, held
        examples = math.ceil(self._situation.task.unique_examples / asked.clients)
        steps = part * math.ceil(settings.local_epochs * examples / settings.batch_size)
        if settings.method == "slora":
            sparse = self._costs.of(_whole(method.pipeline(self._model)))
            later = asked.rounds - settings.first_rounds
            seconds = steps * (settings.first_rounds * sparse.step_seconds + later * cost.step_seconds)
            return seconds, cost.deviation, max(cost.bytes, sparse.bytes)
        return steps * asked.rounds * cost.step_seconds, cost.deviation, cost.bytes


def client_bytes(method: FederatedMethod, model: ModelFacts) -> int:
    """Return the bytes that a client receives and sends if it trains in all rounds."""
    settings = method.settings
    first = settings.first_rounds if settings.method == "slora" else 0
    stages = [
        (first, method.traffic(model, 1)),
        (settings.rounds - first, method.traffic(model, settings.rounds)),
    ]
    return sum(rounds * (moved.down + moved.up) for rounds, moved in stages)


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


@dataclass(frozen=True)
class Study:
    """What recorded federations teach: a linear model of the share of the centralised gain.

    Its features are the logarithms of clients, concentration, share and round. Every method has a level and
    slopes of its own, which are drawn towards those of all methods.

    Args:
        coefficients: Shape (features,).
        deviation: Root mean square error of the share on tasks that were left out.
        clients: Smallest and largest number of clients.
        share: Smallest share of the clients that trained in a round.
        rounds: Largest number of rounds.
        described: What it was learned from, as one sentence.
    """

    coefficients: Floats
    deviation: float
    clients: tuple[int, int]
    share: float
    rounds: int
    described: str

    @classmethod
    def learned(cls, rows: Sequence[Mapping[str, str]]) -> Study:
        """Learn from the rows of the study's table; tasks are left out in turn for the error."""
        features = np.array([_row_features(row) for row in rows])
        kept = np.array([float(row["kept"]) for row in rows])
        tasks = np.array([row["task"] for row in rows])
        errors = np.concatenate(
            [
                kept[tasks == task]
                - np.clip(
                    features[tasks == task] @ _fitted(features[tasks != task], kept[tasks != task]), 0.0, 1.0
                )
                for task in sorted(set(tasks))
            ]
        )
        clients = [int(row["clients"]) for row in rows]
        rounds = max(int(row["round"]) for row in rows)
        cells = {tuple(row[name] for name in row if name not in ("round", "kept")) for row in rows}
        largest = max(int(row["parameters"]) for row in rows)
        return cls(
            _fitted(features, kept),
            float(np.sqrt(np.mean(errors**2))),
            (min(clients), max(clients)),
            min(float(row["share"]) for row in rows),
            rounds,
            f"Shares were learned from {len(cells)} federations of {min(clients)} to {max(clients)} clients "
            f"and {rounds} rounds, on {len(set(tasks))} tasks and models of up to {largest / 1e6:.0f}M "
            "parameters.",
        )

    def kept(self, variant: str, asked: Federation) -> tuple[float, float, float]:
        """Return the predicted share of the centralised gain, and its 90% interval.

        Rounds beyond the study's are taken for its last: shares saturate, which a line does not.
        """
        rounds, share = min(asked.rounds, self.rounds), asked.trained / asked.clients
        features = _features(variant, asked.clients, SKEWS[asked.skew], share, rounds)
        middle = float(np.clip(features @ self.coefficients, 0.0, 1.0))
        width = NORMAL_90 * self.deviation
        return middle, max(0.0, middle - width), min(1.0, middle + width)

    def beyond(self, asked: Federation) -> list[str]:
        """Say where a question lies outside the study."""
        low, high = self.clients
        notes = []
        if not low <= asked.clients <= high:
            notes.append(
                f"The study has {low} to {high} clients; shares for {asked.clients:,} are extrapolated."
            )
        if asked.share < 0.9 * self.share:
            notes.append(
                f"In the study at least {self.share:.0%} of the clients train in a round; shares for "
                f"{asked.share:.0%} are extrapolated."
            )
        if asked.rounds > self.rounds:
            notes.append(
                f"The study has {self.rounds} rounds; shares after {asked.rounds:,} are taken to be the same."
            )
        return notes


@cache
def study_of_package() -> Study:
    """Learn from the package's own study."""
    text = resources.files(__package__).joinpath(STUDY).read_text(encoding="utf-8")
    return Study.learned(list(csv.DictReader(text.splitlines())))


def _row_features(row: Mapping[str, str]) -> Floats:
    return _features(
        row["variant"],
        int(row["clients"]),
        float(row["concentration"]),
        float(row["share"]),
        int(row["round"]),
    )


def _features(variant: str, clients: int, concentration: float, share: float, rounds: int) -> Floats:
    """Return the common intercept and slopes, and those of the method, shape (features,)."""
    common = np.array(
        [1.0, math.log(clients / 8), math.log(concentration), math.log(share), math.log(rounds / 4)]
    )
    own = [common if name == variant else np.zeros_like(common) for name in VARIANTS]
    return np.concatenate([common, *own])


def _fitted(features: Floats, kept: Floats) -> Floats:
    """Solve the ridge regression; only what is a method's own is penalised."""
    penalty = np.full(features.shape[1], SHRINKAGE)
    penalty[: features.shape[1] // (len(VARIANTS) + 1)] = 1e-6
    return np.asarray(np.linalg.solve(features.T @ features + np.diag(penalty), features.T @ kept))
