"""The prior: the trained predictor as one file, which is read with numpy alone.

The file has the safetensors format: arrays, and a JSON header with the versions of schema and features, the
provenance, and a checksum over everything. It contains no code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.arrays import Floats
from tunecast.atomic import written_whole
from tunecast.errors import StoreError, first_line
from tunecast.paths import expanded
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.cost import CostModel, FailureModel
from tunecast.predictor.efficiency import Efficiency
from tunecast.predictor.examples import WORST
from tunecast.predictor.features import FEATURES, FEATURES_VERSION
from tunecast.predictor.known_tasks import KnownTasks
from tunecast.predictor.linear import Line
from tunecast.predictor.memory import BytesModel
from tunecast.predictor.novelty import Novelty
from tunecast.predictor.quality import Quality, Trial
from tunecast.predictor.regressors import Arrays, Regressor, regressor_of
from tunecast.predictor.regressors.base import part, prefixed
from tunecast.predictor.task import TaskDescription
from tunecast.records import DatasetFacts, ModelFacts, Pipeline
from tunecast.untrusted import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 7
SHIPPED = "prior.safetensors"
UNSEEN = "abroad"
"""Name of the calibration for unseen base models in files."""
SHARE, LAST_LOSS = FEATURES.index("share"), FEATURES.index("log_loss")
"""Columns of features of a partial curve."""


@dataclass(frozen=True)
class PriorPredictions:
    """Predictions for the trials of one session; all arrays have shape (trials,).

    Args:
        end: Mean of the logarithm of the loss at the end of the schedule over the zero-shot loss.
        variance: Its variance.
        shared: The part of the variance that all trials of the session have in common.
        log_seconds_per_token: Expected logarithm of seconds per training token, up to a constant that all
            trials share; None if such a device is unknown.
        failure: Probability of divergence.
    """

    end: Floats
    variance: Floats
    shared: Floats
    log_seconds_per_token: Floats | None
    failure: Floats


@dataclass(frozen=True)
class Provenance:
    """The origin of a prior.

    Args:
        checksum: Over the ids of the runs.
        log_scores: Mean log score by regressor on held-out tasks.
        zero_shot_loss: Typical zero-shot loss in nats, used if a task's is unknown.
        largest_model: Parameters of the largest base model.
    """

    runs: int
    tasks: tuple[str, ...]
    models: Mapping[str, str]
    checksum: str
    log_scores: Mapping[str, float]
    zero_shot_loss: float
    largest_model: int


@dataclass(frozen=True)
class Prior:
    """The trained predictor.

    Args:
        calibration: Corrections of its variance, for base models in the training runs.
        unseen_calibration: Corrections for other base models, from holding these out together with tasks.
        cost: Seconds by kind of device, for devices with enough runs.
        bytes: Bytes of workers by kind of device, likewise.
        failure: Odds of divergence, None if no run diverged.
        quality: Final losses before any training, from published runs too.
        known_tasks: The datasets of the training runs.
        efficiency: The share of the ideal speed that steps reach.
    """

    family: str
    performance: Regressor
    calibration: Calibration
    unseen_calibration: Calibration
    novelty: Novelty
    cost: Mapping[str, CostModel]
    bytes: Mapping[str, BytesModel]
    failure: FailureModel | None
    quality: Quality
    known_tasks: KnownTasks
    efficiency: Efficiency
    provenance: Provenance

    def predict(self, task: TaskDescription, features: Floats, device: str = "cpu") -> PriorPredictions:
        """Predict the ends of one session's trials, and their seconds on a kind of ``device``.

        ``features`` are those of :func:`tunecast.predictor.features.feature_rows`, shape (trials, features).
        """
        known = task.model.identity in self.provenance.models
        mean, variance = self.performance.predict(features)
        share = features[:, SHARE]
        whole, shared = (self.calibration if known else self.unseen_calibration).corrected(variance, share)
        last = features[:, LAST_LOSS].clip(max=WORST)
        cost = self.cost.get(device)
        seconds = cost.log_seconds_per_token(features) if cost else None
        failure = self.failure.probability(features) if self.failure else np.zeros(len(features))
        return PriorPredictions(last + mean, whole, shared, seconds, failure)

    @property
    def identity(self) -> str:
        """A hash of its whole content: other code or another seed makes another prior from the same runs."""
        tensors, header = self._taken_apart()
        return _checksum(tensors, json.dumps(header, sort_keys=True))

    def save(self, path: Path) -> None:
        """Write the file, replacing an older one atomically.

        Raises:
            OSError: The file cannot be written.
        """
        from safetensors.numpy import save

        tensors, header = self._taken_apart()
        text = json.dumps(header, sort_keys=True)
        with written_whole(path) as unfinished:
            unfinished.write_bytes(save(tensors, {"prior": text, "checksum": _checksum(tensors, text)}))

    def _taken_apart(self) -> tuple[dict[str, Any], dict[str, Any]]:
        parts: dict[str, Arrays] = {
            "performance": self.performance.arrays,
            "calibration": vars(self.calibration),
            UNSEEN: vars(self.unseen_calibration),
            "novelty": self.novelty.arrays(),
            "quality": self.quality.arrays(),
            "known_tasks": self.known_tasks.arrays(),
        }
        header: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "features_version": FEATURES_VERSION,
            "features": list(FEATURES),
            "family": self.family,
            "novelty": list(self.novelty.names),
            "quality": self.quality.names(),
            "known_tasks": list(self.known_tasks.names),
            "efficiency": self.efficiency.as_json(),
            "provenance": asdict(self.provenance),
        }
        for name, models in (("cost", self.cost), ("bytes", self.bytes)):
            header[name] = {kind: model.deviation for kind, model in models.items()}
            parts |= {f"{name}.{kind}": model.line.arrays() for kind, model in models.items()}
        if self.failure:
            parts["failure"] = self.failure.line.arrays()
        tensors = {
            key: np.ascontiguousarray(values)
            for name, arrays in parts.items()
            for key, values in prefixed(name, arrays).items()
        }
        return tensors, header


def shipped_prior() -> Path | None:
    """Return the file of the prior that comes with the package, None if there is none."""
    path = Path(__file__).parent / SHIPPED
    return path if path.is_file() else None


@cache
def load_prior() -> Prior:
    """Read the prior that comes with the package, once.

    Raises:
        StoreError: It is missing or damaged.
    """
    path = shipped_prior()
    if path is None:
        raise StoreError(
            "This installation of Tunecast has no prior.",
            "Train one (tunecast learn --store URL --output PRIOR) and name it: --prior PRIOR.",
        )
    return read_prior(path)


def prior_at(file: str) -> Prior:
    """Read the prior in a file, or the one that comes with the package if the name is empty.

    Raises:
        StoreError: It is missing or damaged.
    """
    return read_prior(expanded(file)) if file else load_prior()


def read_prior(path: Path) -> Prior:
    """Read a file that :meth:`Prior.save` wrote.

    Raises:
        StoreError: The file cannot be read, is damaged, or is of another version.
    """
    from safetensors import SafetensorError, safe_open

    again = "Train it again: tunecast learn --store URL --output PRIOR."
    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise StoreError(f"The prior {path} cannot be read: {error}.", again) from None
    text = metadata.get("prior", "")
    if not text or metadata.get("checksum") != _checksum(tensors, text):
        raise StoreError(f"The prior {path} is damaged.", again)
    try:
        header = parse_json(text)
        versions = header["schema_version"], header["features_version"], tuple(header["features"])
        if versions != (SCHEMA_VERSION, FEATURES_VERSION, FEATURES):
            raise StoreError(f"The prior {path} is of another version of Tunecast.", again)
        prior = _put_together(tensors, header)
        _try(prior)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise StoreError(f"The prior {path} is damaged ({first_line(error)}).", again) from None
    return prior


def _try(prior: Prior) -> None:
    """Predict once: arrays of other shapes than the code expects are found here, not in a session.

    Raises:
        ValueError: A prediction is not finite, or arrays do not fit each other.
    """
    features = np.zeros((1, len(FEATURES)))
    mean, variance = prior.performance.predict(features)
    found = [mean, variance]
    for calibration in (prior.calibration, prior.unseen_calibration):
        found += calibration.corrected(variance, features[:, SHARE])
    found += [model.log_seconds_per_token(features) for model in prior.cost.values()]
    if prior.failure:
        found.append(prior.failure.probability(features))
    prior.novelty.distance({})
    prior.known_tasks.nearest({})
    for loss in (1.0, None):
        found += vars(prior.quality.predict([_made_up(loss)])).values()
    deviations = [model.deviation for model in prior.cost.values()]
    deviations += [model.deviation for model in prior.bytes.values()]
    if not all(isinstance(number, int | float) for number in deviations):
        raise TypeError("a deviation is not a number")
    if not all(np.shape(values) == (1,) and np.all(np.isfinite(values)) for values in found):
        raise ValueError("its predictions are no numbers")


def _made_up(zero_shot_loss: float | None) -> Trial:
    """Return a trial that any prior can be asked about."""
    model = ModelFacts(
        *("", "", "decoder-only", 10**8, 10**7, 12, 768, 3072, 12, 12, 50_000, 2048),
        *(True, False, False, {}),
    )
    dataset = DatasetFacts("", "", "", {}, {}, {}, 0)
    task = TaskDescription(dataset, model, 10**6, 1000, zero_shot_loss)
    return Trial(task, Pipeline("lora", {"learning_rate": 1e-4, "lora_r": 16, "lora_alpha": 32}), 100)


def _put_together(tensors: Mapping[str, Any], header: Mapping[str, Any]) -> Prior:
    def lines(name: str) -> dict[str, tuple[Line, float]]:
        """Return lines and their deviations by kind of device."""
        spread = header[name].items()
        return {
            kind: (Line.from_arrays(part(f"{name}.{kind}", tensors)), deviation) for kind, deviation in spread
        }

    return Prior(
        family=header["family"],
        performance=regressor_of(header["family"])(part("performance", tensors)),
        calibration=Calibration.from_arrays(part("calibration", tensors)),
        unseen_calibration=Calibration.from_arrays(part(UNSEEN, tensors)),
        novelty=Novelty.from_arrays(part("novelty", tensors), header["novelty"]),
        cost={kind: CostModel(*line) for kind, line in lines("cost").items()},
        bytes={kind: BytesModel(*line) for kind, line in lines("bytes").items()},
        failure=FailureModel(Line.from_arrays(part("failure", tensors)))
        if part("failure", tensors)
        else None,
        quality=Quality.from_arrays(part("quality", tensors), header["quality"]),
        known_tasks=KnownTasks.from_arrays(part("known_tasks", tensors), header["known_tasks"]),
        efficiency=Efficiency.from_json(header["efficiency"]),
        provenance=_provenance(header["provenance"]),
    )


def _provenance(given: Mapping[str, Any]) -> Provenance:
    """Build the provenance from a file's header.

    Raises:
        TypeError: A field is missing, unknown or of another type.
    """
    found = Provenance(**{**given, "tasks": tuple(given["tasks"])})
    texts = [found.checksum, *found.tasks, *found.models.keys(), *found.models.values()]
    numbers = [found.runs, found.zero_shot_loss, found.largest_model, *found.log_scores.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("its provenance has a name that is not text")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise TypeError("its provenance has a figure that is not a number")
    return found


def _checksum(tensors: Mapping[str, NDArray[np.generic]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
