"""What recorded federations teach about the share of the centralised gain that a federated method keeps."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.federated.method import number_drawn
from tunecast.predictor.prediction import NORMAL_90
from tunecast.ranges import check_range

STUDY = "federated_study.csv"
"""The package's table of shares by method, split and round; ``benchmarks/federated_study.py`` wrote it."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "fedavg-lora": {"method": "fedavg-lora"},
    "fedavg-lora, freeze-a": {"method": "fedavg-lora", "aggregation": "freeze-a"},
    "fedavg-lora, product": {"method": "fedavg-lora", "aggregation": "product"},
    "slora": {"method": "slora"},
    "fedkseed, 128 seeds, 25 steps": {"method": "fedkseed", "seeds": 128, "steps": 25},
}
"""Settings of the methods that are compared, by the names that the study gives them."""
SKEWS: Mapping[str, float] = {"high": 0.1, "medium": 0.5, "low": 10.0}
"""How differently labels are spread over clients, as the concentration of a Dirichlet distribution."""
SHRINKAGE = 1.0
"""Ridge penalty on how a method differs from the others."""


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

    @property
    def trained_share(self) -> float:
        """Share of the clients that train in a round, of whole clients."""
        return self.trained / self.clients

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
        sizes = sorted({int(row["parameters"]) / 1e6 for row in rows})
        spans = " to ".join(f"{size:.0f}M" for size in sorted({sizes[0], sizes[-1]}))
        return cls(
            _fitted(features, kept),
            float(np.sqrt(np.mean(errors**2))),
            (min(clients), max(clients)),
            min(float(row["share"]) for row in rows),
            rounds,
            f"Shares were learned from {len(cells)} federations of {min(clients)} to {max(clients)} clients "
            f"and {rounds} rounds, on {len(set(tasks))} tasks and models of {spans} parameters.",
        )

    def kept(self, variant: str, asked: Federation) -> tuple[float, float, float]:
        """Return the predicted share of the centralised gain, and its 90% interval.

        Rounds beyond the study's are taken for its last: shares saturate, which a line does not.
        """
        rounds = min(asked.rounds, self.rounds)
        features = _features(variant, asked.clients, SKEWS[asked.skew], asked.trained_share, rounds)
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
        if asked.trained_share < 0.9 * self.share:
            notes.append(
                f"In the study at least {self.share:.0%} of the clients train in a round; shares for "
                f"{asked.trained_share:.0%} are extrapolated."
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
