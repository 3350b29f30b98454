"""What studies of single trainings share: plain pipelines, usual rates, and validation examples."""

from __future__ import annotations

from dataclasses import replace

from tunecast.methods import BASELINE, get_method
from tunecast.methods.rates import adapter_rate
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.training.training_task import TrainingTask

BATCH = 8
VALIDATED = 100
_OF_LORA = ("lora_", "use_", "init_lora", "target_")


def usual_rate(method: str, facts: ModelFacts) -> float:
    """Return the learning rate around which a method is searched on a model."""
    return get_method(method).rate_multiple * adapter_rate(facts)


def plain_pipeline(method: str, learning_rate: float, **values: Scalar) -> Pipeline:
    """Return the baseline's settings, those of LoRA for kinds of LoRA alone, in batches of :data:`BATCH`."""
    shared = {
        name: value
        for name, value in BASELINE.hyperparameters.items()
        if "lora" in method or not name.startswith(_OF_LORA)
    }
    chosen: dict[str, Scalar] = {"learning_rate": learning_rate, "per_device_train_batch_size": BATCH}
    return Pipeline(method, {**shared, **chosen, **values})


def validated_alike(task: TrainingTask) -> TrainingTask:
    """Return a task whose every point is measured on the same validation examples."""
    return replace(task, subset=task.validation[:VALIDATED], validation=task.validation[:VALIDATED])
