"""The interface of a federated method: what is sent, what a client does with it, how replies are joined."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.atomic import apply_umask
from tunecast.federated.settings import EQUAL, FederatedSettings
from tunecast.federated.site import Arrays, Site
from tunecast.methods import get_method
from tunecast.methods.space import BASELINE
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.training.live_trial import LiveTrial
from tunecast.training.plan import plan_trial

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

NUMBER_BYTES = 4
"""Bytes of one number in a message: all are float32 or uint32."""


@dataclass(frozen=True)
class Contribution:
    """What one client learned in a round.

    ``weight`` is its share among the clients that count, which sum to 1.
    """

    name: str
    weight: float
    arrays: Arrays


@dataclass(frozen=True)
class Joined:
    """The server's state after a round.

    ``bias`` is how far the joined change lies from the mean of the clients' changes, as a share of that
    mean's norm; None if the method joins exactly.
    """

    state: Arrays
    bias: float | None = None


@dataclass(frozen=True)
class Traffic:
    """Bytes of the arrays that one client receives (``down``) and sends (``up``) in a round."""

    down: int
    up: int


class FederatedMethod(ABC):
    """A federated method. It is stateless: :meth:`start` and :meth:`join` return the server's state."""

    def __init__(self, settings: FederatedSettings) -> None:
        self.settings = settings

    @property
    def first_delivered(self) -> int:
        """The first round whose state can be delivered."""
        return 1

    @abstractmethod
    def start(self, site: Site) -> Arrays:
        """Return the server's state before the first round, which leaves the base model as it is."""

    @abstractmethod
    def send(self, state: Arrays, number: int, client: str) -> Arrays:
        """Return what a client gets in round ``number``, counted from 1."""

    @abstractmethod
    def train(
        self, site: Site, received: Arrays, examples: Sequence[EncodedExample], number: int, client: str
    ) -> Arrays:
        """Train as a client, and return its reply. The same arguments give the same reply."""

    @abstractmethod
    def refusal(self, site: Site, state: Arrays, reply: Arrays, number: int) -> str:
        """Return why a reply cannot be joined; empty if it can."""

    @abstractmethod
    def join(self, site: Site, state: Arrays, contributions: Sequence[Contribution], number: int) -> Joined:
        """Return the state after a round. There may be no contributions; their order does not matter."""

    @abstractmethod
    def traffic(self, model: ModelFacts, number: int) -> Traffic:
        """Return what a client receives and sends in round ``number``, by the model's shapes alone."""

    @abstractmethod
    def installed(self, site: Site, state: Arrays) -> AbstractContextManager[Any]:
        """Yield the model of a state, to score or to save; the base is as before afterwards."""

    @abstractmethod
    def pipeline(self, model: ModelFacts) -> Pipeline:
        """Return the pipeline that clients train by."""

    def save(self, site: Site, state: Arrays, folder: Path, base_location: str) -> None:
        """Write the model of a state as transformers and peft load it, with its tokenizer."""
        pipeline = self.pipeline(site.facts)
        with self.installed(site, state) as model:
            get_method(pipeline.method).save(model, folder, base_location)
        site.tokenizer.save_pretrained(folder)
        apply_umask(folder)


def pipeline_of(settings: FederatedSettings, method: str, rate: float, **values: Any) -> Pipeline:
    """Return a pipeline of constant rate; clients start again every round, so nothing can decay."""
    shared: dict[str, Scalar] = {
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "per_device_train_batch_size": settings.batch_size,
    }
    return Pipeline(method, {**BASELINE.hyperparameters, **shared, **values})


def train_locally(
    site: Site, model: Any, pipeline: Pipeline, examples: Sequence[EncodedExample], epochs: float, seed: int
) -> None:
    """Train all parameters with ``requires_grad`` on a client's examples.

    Raises:
        DivergedError: A loss or a gradient is not finite.
    """
    lengths = [example.tokens for example in examples]
    tokens = max(1, round(epochs * sum(lengths)))
    plan = plan_trial(lengths, pipeline, seed=seed, full_length_tokens=tokens)
    trial = LiveTrial(model, pipeline, plan, examples, site.compute, site.loss, seed=seed)
    trial.advance(plan.total_steps)


def number_drawn(share: float, clients: int) -> int:
    """Return how many of the clients train in a round, at least one."""
    return max(1, round(share * clients))


def derived_seed(settings: FederatedSettings, number: int, client: str) -> int:
    """Return the seed of a client's round: a client that is asked again replies the same."""
    words = [settings.seed, number, zlib.crc32(client.encode())]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def weights(examples: Mapping[str, int], settings: FederatedSettings) -> dict[str, float]:
    """Return the share of each client, by its number of examples or equally; they sum to 1."""
    counts = {name: 1 if settings.weighting == EQUAL else count for name, count in examples.items()}
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def mean(contributions: Sequence[Contribution], name: str) -> np.ndarray:
    """Return the weighted mean of one array, summed in float64 and by name, so that order does not matter."""
    ordered = sorted(contributions, key=lambda one: one.name)
    total = sum(one.weight * one.arrays[name].astype(np.float64) for one in ordered)
    return np.asarray(total, dtype=np.float32)


def wrong_arrays(reply: Arrays, expected: Mapping[str, tuple[int, ...]]) -> str:
    """Return how a reply differs from float32 arrays of these names and shapes; empty if it does not."""
    if reply.keys() != expected.keys():
        return f"it sent {len(reply)} arrays, {len(reply.keys() ^ expected.keys())} of them under other names"
    for name, shape in expected.items():
        if reply[name].shape != shape or reply[name].dtype != np.float32:
            return f"{name} is {reply[name].dtype} of shape {reply[name].shape}, not float32 of shape {shape}"
    return next(not_finite(reply), "")


def not_finite(reply: Arrays) -> Iterator[str]:
    """Yield a sentence for each array with NaN or infinity."""
    for name, array in reply.items():
        if not np.isfinite(array).all():
            yield f"{name} holds numbers that are not finite"
