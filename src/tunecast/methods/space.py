"""The space of pipelines as one ConfigSpace: every method's own hyperparameters and the shared ones.

Each method is a conditional subspace under the root ``method``. Ranges differ by method, so hyperparameters
carry the method's name as a prefix there (``lora:learning_rate``), and lose it in a :class:`Pipeline`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError
from tunecast.methods.base import Method, is_constant
from tunecast.methods.rates import OPTIMIZER_RATES, SCHEDULES, STEADY, optimizer_rate
from tunecast.methods.registry import get_method, method_names
from tunecast.methods.restrictions import (
    ANSWER_METRICS,
    METRICS,
    Restrictions,
    fixed_value,
    is_number,
    narrowed,
    plain,
    refuse_contradictions,
    refuse_unknown,
    values_of,
)
from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts, Pipeline, Scalar, stable_hash

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace
    from ConfigSpace.hyperparameters import Hyperparameter

ROOT = "method"
SAMPLED_TOGETHER = 64
"""Configurations sampled per call. One at a time is far slower; a fixed number makes samples extendable."""
DRAWN_OPTIMIZERS = {name: facts.drawn for name, facts in OPTIMIZERS.items() if facts.drawn is not None}
"""Relative frequency with which each optimiser is drawn."""
RATE = "learning_rate"
TRAINING_LOSS = "training_loss"
COMPLETION, LABELS, DISTILLATION, HEAD = "completion", "labels", "distillation", "head"
"""Values of ``training_loss`` that every method takes; all but the first need the labels of a classification.

See ``training/trained_loss.py``; methods without gradients also take :data:`METRICS`.
"""
CHECKPOINTING = "gradient_checkpointing"
NEVER_DRAWN = (TRAINING_LOSS, CHECKPOINTING)
"""Hyperparameters that pipelines have only if they are fixed."""
RATE_3E4 = 3e-4
BASELINE = Pipeline(
    "lora",
    {
        "learning_rate": 2e-4,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": "default",
        "optim": "adamw",
        "weight_decay": 0.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "per_device_train_batch_size": 16,
        "max_grad_norm": 1.0,
        "neftune_noise_alpha": 0.0,
    },
)
"""The pipeline a careful engineer would use by default."""

USUAL_MODEL = ModelFacts(
    name="a typical model",
    family="llama",
    architecture="decoder-only",
    parameters=134_515_008,
    embedding_parameters=28_311_552,
    layers=30,
    width=576,
    feed_forward_width=1536,
    heads=9,
    key_value_heads=3,
    vocabulary=49_152,
    context=2048,
    tied_embeddings=True,
    has_biases=False,
    has_chat_template=True,
    config={},
)
"""Stands for any model where only the names and types of hyperparameters matter."""


def at_3e4(baseline: Pipeline = BASELINE) -> Pipeline:
    """Return a baseline at 3e-4, the other learning rate that is often recommended."""
    return replace(baseline, hyperparameters={**baseline.hyperparameters, RATE: RATE_3E4})


def recomputing(pipeline: Pipeline) -> Pipeline | None:
    """Return a pipeline with gradient checkpointing; None if it says that itself, or has no use for it."""
    if CHECKPOINTING in pipeline.hyperparameters or CHECKPOINTING in get_method(pipeline.method).ignores:
        return None
    return replace(pipeline, hyperparameters={**pipeline.hyperparameters, CHECKPOINTING: True})


def keeping_activations(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline without gradient checkpointing."""
    rest = {name: value for name, value in pipeline.hyperparameters.items() if name != CHECKPOINTING}
    return replace(pipeline, hyperparameters=rest)


def minimises_measured(pipeline: Pipeline) -> bool:
    """Whether a pipeline minimises the loss that points measure; others teach nothing about losses."""
    return pipeline.hyperparameters.get(TRAINING_LOSS, COMPLETION) == COMPLETION


def needs_labels(training_loss: Scalar) -> bool:
    """Whether a training loss needs the labels of a classification."""
    return training_loss not in (COMPLETION, *ANSWER_METRICS)


def check_names(restrictions: Restrictions) -> None:
    """Check the names in restrictions; they are the same for all models.

    Raises:
        ConfigurationError: A method or hyperparameter is unknown.
    """
    names = restrictions.methods or method_names()
    for name in names:
        get_method(name)
    if restrictions.fixed or restrictions.ranges:  # else ConfigSpace, which takes a second, is not needed yet
        refuse_unknown(restrictions, {name: _parameters(name, USUAL_MODEL) for name in names})


def check_pipeline(pipeline: Pipeline) -> None:
    """Check that a pipeline can be trained.

    Raises:
        ConfigurationError: The method or a hyperparameter is unknown, or has an invalid value.
    """
    check_names(Restrictions((pipeline.method,), pipeline.hyperparameters))
    if not pipeline.hyperparameters:
        return
    parameters = _parameters(pipeline.method, USUAL_MODEL)
    for name, value in pipeline.hyperparameters.items():
        fixed_value(parameters[name], value)


def baseline_pipeline(model: ModelFacts, restrictions: Restrictions | None = None) -> Pipeline:
    """Return the baseline within the user's restrictions.

    If LoRA is not allowed, it is the default configuration of the allowed method with the highest weight, the
    first of these in case of a tie.

    Raises:
        ConfigurationError: As for :func:`pipeline_space`.
    """
    restrictions = restrictions or Restrictions()
    usable = _parameters_by_method(model, restrictions)
    if BASELINE.method not in usable:
        return _to_pipeline(pipeline_space(model, restrictions).get_default_configuration())
    values: dict[str, Scalar] = {**BASELINE.hyperparameters}
    parameters = _parameters(BASELINE.method, model)
    for name, value in restrictions.fixed.items():
        if name in parameters:
            values[name] = fixed_value(parameters[name], value)
    for name, (low, high) in restrictions.ranges.items():
        usual = values.get(name, plain(parameters[name].default_value) if name in parameters else "")
        if is_number(usual):
            values[name] = type(usual)(min(max(usual, low), high))
    if values["lr_scheduler_type"] == "constant":  # runs without warm-up
        del values["warmup_ratio"]
    if RATE not in (*restrictions.fixed, *restrictions.ranges):
        values[RATE] = optimizer_rate(str(values["optim"]), float(values[RATE]))
    return Pipeline(BASELINE.method, values)


def pipeline_space(
    model: ModelFacts, restrictions: Restrictions | None = None, *, seed: int = 0
) -> ConfigurationSpace:
    """Build the conditional space of all pipelines that apply to a model; learning rates follow its width.

    Raises:
        ConfigurationError: A restriction names an unknown method or hyperparameter, has an invalid value or
            contradicts another one, or no method is left.
    """
    from ConfigSpace import ConfigurationSpace

    space = ConfigurationSpace(seed=seed)
    # Each call sorts the space again: adding methods one by one would take half a second.
    space.add(*_branches(model, restrictions or Restrictions()))
    return space


def check_restrictions(model: ModelFacts, restrictions: Restrictions) -> None:
    """Refuse what :func:`pipeline_space` would refuse, in a tenth of its time.

    Raises:
        ConfigurationError: As for :func:`pipeline_space`.
    """
    _branches(model, restrictions)


def _branches(model: ModelFacts, restrictions: Restrictions) -> list[Any]:
    """Return the choice of the method, followed by the hyperparameters of each with their conditions."""
    from ConfigSpace import Categorical

    parameters = _parameters_by_method(model, restrictions)
    names = list(parameters)
    root = Categorical(ROOT, names, weights=[get_method(name).weight for name in names])
    return [root, *(_branch(root, name, parameters[name], restrictions) for name in names)]


def sample_pipelines(space: ConfigurationSpace, count: int) -> list[Pipeline]:
    """Sample distinct pipelines, advancing the space's generator; fewer than ``count`` if it has no more."""
    found: dict[str, Pipeline] = {}
    for _ in range(math.ceil(10 * count / SAMPLED_TOGETHER)):
        for configuration in space.sample_configuration(SAMPLED_TOGETHER):
            pipeline = _to_pipeline(configuration)
            found.setdefault(pipeline.id, pipeline)
            if len(found) >= count:
                return list(found.values())
    return list(found.values())


def drawn_pipelines(
    model: ModelFacts, restrictions: Restrictions, count: int, *, seed: int = 0
) -> Sequence[Pipeline]:
    """Return what :func:`sample_pipelines` draws first from the space of a model.

    Building and sampling a space takes a quarter of a second, so the latest answers are kept.

    Raises:
        ConfigurationError: As for :func:`pipeline_space`, if any are to be drawn.
    """
    usable = tuple(map(get_method, _usable(model, restrictions)))
    key = stable_hash([asdict(model), asdict(restrictions)])
    return _drawn(_Draw(key, usable, count, seed, model, restrictions)) if count else ()


@dataclass(frozen=True)
class _Draw:
    """What a draw depends on; ``key`` stands for model and restrictions, whose mappings cannot be hashed.

    The ``usable`` methods change if others are registered, or a library is missing.
    """

    key: str
    usable: tuple[Method, ...]
    count: int
    seed: int
    model: ModelFacts = field(compare=False)
    restrictions: Restrictions = field(compare=False)


@lru_cache(maxsize=8)
def _drawn(draw: _Draw) -> tuple[Pipeline, ...]:
    space = pipeline_space(draw.model, draw.restrictions, seed=draw.seed)
    return tuple(sample_pipelines(space, draw.count))


def _to_pipeline(configuration: Configuration) -> Pipeline:
    method = str(configuration[ROOT])
    values = {
        name.removeprefix(f"{method}:").partition("@")[0]: plain(value)
        for name, value in sorted(configuration.items())
        if name != ROOT
    }
    return Pipeline(method, values)


def _why_not(name: str, model: ModelFacts, restrictions: Restrictions) -> str | None:
    method = get_method(name)
    if restrictions.fixed.get(TRAINING_LOSS) == HEAD and not method.supports_head:
        return "it trains no classification head (training_loss=head)"
    if restrictions.fixed.get(TRAINING_LOSS) in METRICS and not _takes_metrics(method):
        return f"it follows gradients, and training_loss={restrictions.fixed[TRAINING_LOSS]} has none"
    if restrictions.devices > 1 and (reason := method.why_not_shardable()):
        return f"{reason} (--gpus-per-trial {restrictions.devices})"
    return method.applies_elsewhere(model) if restrictions.elsewhere else method.applies(model)


def _takes_metrics(method: Method) -> bool:
    return bool(method.optimizer) and not OPTIMIZERS[method.optimizer].uses_gradients


def why_not_shardable(pipeline: Pipeline) -> str | None:
    """Return why a pipeline's trial cannot be spread over devices, or None if it can."""
    optimizer = OPTIMIZERS.get(str(pipeline.hyperparameters.get("optim")))
    if optimizer is not None and not optimizer.is_elementwise:
        return "its optimiser needs whole tensors"
    return get_method(pipeline.method).why_not_shardable()


def unshardable_methods(model: ModelFacts, restrictions: Restrictions) -> list[str]:
    """Return the methods that are left out only because trials are spread over devices."""
    if restrictions.devices == 1:
        return []
    alone = replace(restrictions, devices=1)
    return [
        name
        for name in restrictions.methods or method_names()
        if _why_not(name, model, alone) is None and _why_not(name, model, restrictions)
    ]


def _applies(name: str, model: ModelFacts, restrictions: Restrictions) -> bool:
    reason = _why_not(name, model, restrictions)
    if reason and name in restrictions.methods:
        raise ConfigurationError(f"--methods: {name} cannot be used on {model.name}: {reason}.")
    return reason is None


def _parameters(name: str, model: ModelFacts) -> dict[str, Hyperparameter]:
    """Return a method's own hyperparameters and the shared ones by name; its own take precedence."""
    from ConfigSpace import Categorical, Constant

    method = get_method(name)
    losses = (COMPLETION, LABELS, DISTILLATION, HEAD, *(METRICS if _takes_metrics(method) else ()))
    shared = (
        Categorical(
            "optim", tuple(DRAWN_OPTIMIZERS), default="adamw", weights=tuple(DRAWN_OPTIMIZERS.values())
        ),
        Categorical("lr_scheduler_type", SCHEDULES, default="cosine"),
        Categorical("warmup_ratio", (0.0, 0.03, 0.1), default=0.03, ordered=True),
        Categorical("weight_decay", (0.0, 0.01, 0.1), default=0.0, ordered=True),
        Categorical("per_device_train_batch_size", (4, 8, 16, 32), default=16, ordered=True),
        Categorical("neftune_noise_alpha", (0.0, 5.0), default=0.0, weights=(0.8, 0.2)),
        Categorical("label_smoothing", (0.0, 0.05, 0.1), default=0.0, weights=(0.8, 0.1, 0.1)),
        Constant("max_grad_norm", 1.0),
        Categorical(TRAINING_LOSS, losses, default=COMPLETION),
        Categorical(CHECKPOINTING, (False, True), default=False),
    )
    effective = (parameter for parameter in shared if parameter.name not in method.ignores)
    return {parameter.name: parameter for parameter in (*effective, *method.hyperparameters(model))}


def _usable(model: ModelFacts, restrictions: Restrictions) -> list[str]:
    """Return the names of the methods that the user allows and that apply to a model; none is an error."""
    wanted = dict.fromkeys(restrictions.methods or method_names())
    names = [name for name in wanted if _applies(name, model, restrictions)]
    if not names:
        reasons = "; ".join(f"{name}: {_why_not(name, model, restrictions)}" for name in wanted)
        raise ConfigurationError(f"--model: no method can be used on {model.name} ({reasons}).")
    return names


def _parameters_by_method(
    model: ModelFacts, restrictions: Restrictions
) -> dict[str, dict[str, Hyperparameter]]:
    """Return the hyperparameters of every usable method, after checking the restrictions."""
    parameters = {name: _parameters(name, model) for name in _usable(model, restrictions)}
    refuse_unknown(restrictions, parameters)
    refuse_contradictions(restrictions)
    return parameters


def _branch(
    root: Hyperparameter, name: str, parameters: Mapping[str, Hyperparameter], restrictions: Restrictions
) -> list[Any]:
    """Return a method's hyperparameters under their names in the space, with their conditions."""
    from ConfigSpace import EqualsCondition, OrConjunction

    kept = {key: narrowed(parameter, restrictions) for key, parameter in parameters.items()}
    for asked in NEVER_DRAWN:
        if asked not in restrictions.fixed:
            kept.pop(asked, None)
    warming = [
        value
        for value in (*SCHEDULES, STEADY)
        if value != "constant" and kept["lr_scheduler_type"].legal_value(value)
    ]
    if not warming:
        del kept["warmup_ratio"]
    if RATE not in (*restrictions.fixed, *restrictions.ranges):  # the user's rate holds for any optimiser
        kept |= _rates(kept)
    own = {key: _renamed(parameter, f"{name}:{key}") for key, parameter in kept.items()}
    conditions = _rate_conditions(own)
    # A constant schedule runs without warm-up.
    schedule = own["lr_scheduler_type"]
    if warming and not is_constant(schedule):
        by_schedule = [EqualsCondition(own["warmup_ratio"], schedule, value) for value in warming]
        conditions.append(OrConjunction(*by_schedule) if len(by_schedule) > 1 else by_schedule[0])
    conditions += get_method(name).constraints(own)
    children = {condition.child.name for condition in conditions if hasattr(condition, "child")}
    of_root = [
        EqualsCondition(parameter, root, name) for parameter in own.values() if parameter.name not in children
    ]
    return [*own.values(), *conditions, *of_root]


def _renamed(parameter: Hyperparameter, name: str) -> Hyperparameter:
    renamed = copy.copy(parameter)
    renamed.name = name
    return renamed


def _rates(parameters: Mapping[str, Hyperparameter]) -> dict[str, Hyperparameter]:
    """Return a learning rate per optimiser whose range is not AdamW's, such as ``learning_rate@lion``."""
    from ConfigSpace import Float

    if "optim" not in parameters:
        return {}
    optimizer, rate = parameters["optim"], parameters[RATE]

    def scaled(name: str, own: str) -> Hyperparameter:
        bounds = optimizer_rate(own, rate.lower), optimizer_rate(own, rate.upper)
        return Float(name, bounds, log=rate.log)

    if is_constant(optimizer):
        return {RATE: scaled(RATE, str(optimizer.default_value))}
    return {
        f"{RATE}@{own}": scaled(f"{RATE}@{own}", own) for own in OPTIMIZER_RATES if optimizer.legal_value(own)
    }


def _rate_conditions(parameters: Mapping[str, Hyperparameter]) -> list[Any]:
    """Activate exactly one learning rate, that of the chosen optimiser."""
    from ConfigSpace import EqualsCondition, InCondition

    owners = {name.partition("@")[2]: own for name, own in parameters.items() if name.startswith(f"{RATE}@")}
    if not owners:
        return []
    optimizer = parameters["optim"]
    others = [name for name in map(str, values_of(optimizer)) if name not in owners]
    return [
        InCondition(parameters[RATE], optimizer, others),
        *(EqualsCondition(rate, optimizer, owner) for owner, rate in owners.items()),
    ]
