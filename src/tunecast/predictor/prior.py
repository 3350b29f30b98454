"""The prior: the trained predictor as one file, which is read with numpy alone.

The file has the safetensors format: arrays, and a JSON header with the versions of schema and features, the
provenance, and a checksum over everything. It contains no code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.atomic import written_whole
from tunecast.errors import StoreError, first_line
from tunecast.paths import expanded
from tunecast.predictor.cost import CostModel
from tunecast.predictor.efficiency import Efficiency
from tunecast.predictor.features import FEATURES, FEATURES_VERSION, feature_rows
from tunecast.predictor.known_tasks import KnownTasks
from tunecast.predictor.linear import Line
from tunecast.predictor.memory import BytesModel
from tunecast.predictor.named_arrays import part, prefixed
from tunecast.predictor.novelty import Novelty
from tunecast.predictor.quality import Quality, Trial
from tunecast.predictor.task import TaskDescription
from tunecast.records import DatasetFacts, ModelFacts, Pipeline
from tunecast.untrusted import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 8
SHIPPED = "prior.safetensors"
BEYOND = 1.5
"""Size of a base model, as a multiple of the largest recorded one, above which predictions extrapolate."""


@dataclass(frozen=True)
class Provenance:
    """The origin of a prior.

    Args:
        checksum: Over the ids of the runs.
        zero_shot_loss: Typical zero-shot loss in nats, used if a task's is unknown.
        largest_model: Parameters of the largest base model.
    """

    runs: int
    tasks: tuple[str, ...]
    models: Mapping[str, str]
    checksum: str
    zero_shot_loss: float
    largest_model: int

    def is_beyond(self, model: ModelFacts) -> bool:
        """Return whether a base model is much larger than all recorded ones."""
        return model.parameters > BEYOND * self.largest_model


@dataclass(frozen=True)
class Prior:
    """The trained predictor.

    Args:
        quality: Final losses, before any training and with points.
        novelty: Which datasets are unlike all known ones.
        cost: Seconds by kind of device, for devices with enough runs.
        bytes: Bytes of workers by kind of device, likewise.
        known_tasks: The datasets of the training runs.
        efficiency: The share of the ideal speed that steps reach.
    """

    quality: Quality
    novelty: Novelty
    cost: Mapping[str, CostModel]
    bytes: Mapping[str, BytesModel]
    known_tasks: KnownTasks
    efficiency: Efficiency
    provenance: Provenance

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
        parts = {
            "quality": self.quality.arrays(),
            "novelty": self.novelty.arrays(),
            "known_tasks": self.known_tasks.arrays(),
        }
        header: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "features_version": FEATURES_VERSION,
            "features": list(FEATURES),
            "novelty": list(self.novelty.names),
            "quality": self.quality.names(),
            "known_tasks": list(self.known_tasks.names),
            "efficiency": self.efficiency.as_json(),
            "provenance": asdict(self.provenance),
        }
        for name, models in (("cost", self.cost), ("bytes", self.bytes)):
            header[name] = {kind: model.deviation for kind, model in models.items()}
            parts |= {f"{name}.{kind}": model.line.arrays() for kind, model in models.items()}
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
    task = _made_up_task()
    pipeline = Pipeline("lora", {"learning_rate": 1e-4, "lora_r": 16, "lora_alpha": 32})
    features = feature_rows(task, [pipeline])
    found = [model.log_seconds_per_token(features) for model in prior.cost.values()]
    for loss in (1.0, None):
        trial = Trial(replace(task, zero_shot_loss=loss), pipeline, 100)
        found += vars(prior.quality.predict([trial])).values()
    found += vars(prior.quality.after(task, features)).values()
    prior.novelty.distance({})
    prior.known_tasks.nearest({})
    deviations = [model.deviation for model in prior.cost.values()]
    deviations += [model.deviation for model in prior.bytes.values()]
    if not all(isinstance(number, int | float) for number in deviations):
        raise TypeError("a deviation is not a number")
    if not all(np.shape(values) == (1,) and np.all(np.isfinite(values)) for values in found):
        raise ValueError("its predictions are no numbers")


def _made_up_task() -> TaskDescription:
    """Return a task that any prior can be asked about."""
    model = ModelFacts(
        *("", "", "decoder-only", 10**8, 10**7, 12, 768, 3072, 12, 12, 50_000, 2048),
        *(True, False, False, {}),
    )
    return TaskDescription(DatasetFacts("", "", "", {}, {}, {}, 0), model, 10**6, 1000, 1.0)


def _put_together(tensors: Mapping[str, Any], header: Mapping[str, Any]) -> Prior:
    def lines(name: str) -> dict[str, tuple[Line, float]]:
        """Return lines and their deviations by kind of device."""
        spread = header[name].items()
        return {
            kind: (Line.from_arrays(part(f"{name}.{kind}", tensors)), deviation) for kind, deviation in spread
        }

    return Prior(
        quality=Quality.from_arrays(part("quality", tensors), header["quality"]),
        novelty=Novelty.from_arrays(part("novelty", tensors), header["novelty"]),
        cost={kind: CostModel(*line) for kind, line in lines("cost").items()},
        bytes={kind: BytesModel(*line) for kind, line in lines("bytes").items()},
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
    numbers = [found.runs, found.zero_shot_loss, found.largest_model]
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
