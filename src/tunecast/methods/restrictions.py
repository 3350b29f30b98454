"""What users may restrict in the space of pipelines: the methods, fixed values and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.methods.rates import STEADY
from tunecast.optimizers import OPTIMIZERS
from tunecast.ranges import MAX_HYPERPARAMETER
from tunecast.records import Scalar

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

ONLY_FIXED = {"lr_scheduler_type": (STEADY,)}
"""Values that are never drawn, and can be fixed."""
LABEL_METRICS = ("accuracy", "macro_f1")
ANSWER_METRICS = ("exact_match", "token_f1", "rougeL", "bleu", "chrf")
METRICS = LABEL_METRICS + ANSWER_METRICS
"""Values of ``training_loss`` for methods without gradients: metrics of the likeliest labels, and metrics of
the answers that the model writes; see ``training/metric_loss.py``."""
OF_SOME_METHODS = {"training_loss": METRICS}
"""Values that only some methods take, which a misspelt one may mean."""
SHARES = ("warmup_ratio", "_dropout", "_share", "label_smoothing")
"""Name endings of hyperparameters that must be below 1."""

OTHER_NAMES = {
    **dict.fromkeys(("lr", "rate", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("r", "rank", "lora_rank"), "lora_r"),
    **dict.fromkeys(("alpha", "scaling"), "lora_alpha"),
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "dora": "use_dora",
    "rslora": "use_rslora",
    **dict.fromkeys(("batch_size", "batch", "bs", "train_batch_size"), "per_device_train_batch_size"),
    **dict.fromkeys(("optimizer", "optimiser"), "optim"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "schedule"), "lr_scheduler_type"),
    **dict.fromkeys(("warmup", "warmup_steps"), "warmup_ratio"),
    "wd": "weight_decay",
    **dict.fromkeys(("clip", "grad_clip", "gradient_clipping"), "max_grad_norm"),
    "neftune": "neftune_noise_alpha",
}
"""What other trainers and papers call hyperparameters, too far from our names to be found by similarity."""
OPTIONS = {
    **dict.fromkeys(("epochs", "num_train_epochs", "num_epochs"), "--epochs"),
    **dict.fromkeys(("max_length", "max_seq_length", "cutoff_len", "sequence_len"), "--max-length"),
    "seed": "--seed",
}
"""Names of settings that are options of their own."""


@dataclass(frozen=True)
class Restrictions:
    """The user's restrictions of the space; no ``methods`` allow all, and ranges are (low, high).

    With ``elsewhere``, a method need not run on this machine: the pipeline is for another one. On several
    ``devices``, every trial is spread over all of them.
    """

    methods: tuple[str, ...] = ()
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    elsewhere: bool = False
    devices: int = 1


def refuse_unknown(
    restrictions: Restrictions, parameters: Mapping[str, Mapping[str, Hyperparameter]]
) -> None:
    """Refuse names that no method has; ``parameters`` are those of the methods, by the method's name.

    Raises:
        ConfigurationError: A hyperparameter is unknown.
    """
    known = sorted({name for own in parameters.values() for name in own})
    for flag, names in (("--fix", restrictions.fixed), ("--range", restrictions.ranges)):
        for name in names:
            if name not in known:
                raise ConfigurationError(
                    f"{flag}: there is no hyperparameter {name!r} for {', '.join(parameters)}.",
                    f"{_meant(name, known)}Known ones: {', '.join(known)}.",
                )


def _meant(name: str, known: Sequence[str]) -> str:
    """Return a hint such as ``Did you mean learning_rate? ``; empty if nothing is similar."""
    if name in OPTIONS:
        return f"That is the option {OPTIONS[name]}. "
    usual = OTHER_NAMES.get(name.lower().replace("-", "_"))
    return f"Did you mean {usual}? " if usual in known else did_you_mean(name, known)


def refuse_contradictions(restrictions: Restrictions) -> None:
    """Refuse a restriction that leaves another without effect.

    Raises:
        ConfigurationError: Two restrictions contradict each other.
    """
    for name in restrictions.fixed:
        if name in restrictions.ranges:
            low, high = restrictions.ranges[name]
            given = f"--fix {name}={restrictions.fixed[name]} and --range {name}={low:g}:{high:g}"
            raise ConfigurationError(f"{given} are both given.", "Leave one of them out.")
    optimizer = OPTIMIZERS.get(str(restrictions.fixed.get("optim")))
    if restrictions.devices > 1 and optimizer is not None and not optimizer.is_elementwise:
        raise ConfigurationError(
            f"--fix optim={restrictions.fixed['optim']} needs whole tensors, and --gpus-per-trial "
            f"{restrictions.devices} spreads them over devices.",
            f"Use {', '.join(spreadable_optimizers())}.",
        )
    if restrictions.devices > 1 and restrictions.fixed.get("training_loss") == "distillation":
        raise ConfigurationError(
            "--fix training_loss=distillation asks the base model, and --gpus-per-trial "
            f"{restrictions.devices} spreads it over devices.",
            "Use --gpus-per-trial 1, or another training_loss.",
        )
    warmup = restrictions.fixed.get("warmup_ratio", 0.0)
    _, most = restrictions.ranges.get("warmup_ratio", (0.0, 0.0))
    if restrictions.fixed.get("lr_scheduler_type") == "constant" and (warmup or most):
        given = f"--fix warmup_ratio={warmup}" if warmup else "--range warmup_ratio"
        raise ConfigurationError(
            f"{given} has no effect with --fix lr_scheduler_type=constant, which is run without warm-up.",
            "Leave one of them out.",
        )


def spreadable_optimizers() -> tuple[str, ...]:
    """Return the optimisers of trials that are spread over devices."""
    return tuple(name for name, one in OPTIMIZERS.items() if one.drawn is not None and one.is_elementwise)


def narrowed(parameter: Hyperparameter, restrictions: Restrictions) -> Hyperparameter:
    """Apply restrictions to a hyperparameter: a constant if it is fixed, fewer values in a range.

    Raises:
        ConfigurationError: The fixed value or the range is impossible.
    """
    from ConfigSpace import Constant

    name = parameter.name
    if name in restrictions.fixed:
        return Constant(name, fixed_value(parameter, restrictions.fixed[name]))
    if name in restrictions.ranges:
        return _within(parameter, *restrictions.ranges[name])
    if name == "optim" and restrictions.devices > 1:
        return _spreadable(parameter)
    return parameter


def _spreadable(parameter: Hyperparameter) -> Hyperparameter:
    """Return the choice among the optimisers of trials that are spread over devices."""
    from ConfigSpace import Categorical

    values = [value for value in values_of(parameter) if value in spreadable_optimizers()]
    weights = [OPTIMIZERS[str(value)].drawn for value in values]
    return Categorical(parameter.name, values, default=values[0], weights=weights)


def _within(parameter: Hyperparameter, low: float, high: float) -> Hyperparameter:
    """Return a hyperparameter with the values of a range alone."""
    from ConfigSpace import Categorical, Float

    name, given = parameter.name, f"--range {parameter.name}={low:g}:{high:g}"
    if high > MAX_HYPERPARAMETER:
        raise ConfigurationError(f"{given}: the upper end must be at most {MAX_HYPERPARAMETER:,.0f}.")
    if not low < high:
        raise ConfigurationError(f"{given}: the lower end is not below the upper one.")
    if hasattr(parameter, "log"):
        if low <= 0 and parameter.log:
            raise ConfigurationError(f"{given}: {name} must be above 0, because its scale is logarithmic.")
        return Float(name, (low, high), log=parameter.log)
    values = [value for value in values_of(parameter) if is_number(value) and low <= value <= high]
    if not values:
        raise ConfigurationError(
            f"{given}: no value of {name} lies in it.", f"{name} takes {_describe(parameter)}."
        )
    nearest = min(values, key=lambda value: abs(value - parameter.default_value))
    return Categorical(name, values, default=nearest, ordered=True)


def values_of(parameter: Hyperparameter) -> list[Scalar]:
    """Return the values of a discrete hyperparameter as Python scalars."""
    for attribute in ("sequence", "choices"):
        if hasattr(parameter, attribute):
            return [plain(value) for value in getattr(parameter, attribute)]
    return [plain(parameter.default_value)]


def is_number(value: Scalar) -> TypeGuard[int | float]:
    """Tell a number from a text, and from true and false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def fixed_value(parameter: Hyperparameter, value: Scalar) -> Scalar:
    """Convert the user's value to the hyperparameter's type; a number may lie outside the searched values.

    Raises:
        ConfigurationError: The hyperparameter cannot have this value.
    """
    example = plain(parameter.default_value)
    if is_number(example):
        if is_number(value) and _is_possible(parameter, value):
            return type(example)(value)
    elif type(value) is type(example) and (
        parameter.legal_value(value) or value in ONLY_FIXED.get(parameter.name, ())
    ):
        return value
    meant = did_you_mean(
        str(value), map(str, (*values_of(parameter), *OF_SOME_METHODS.get(parameter.name, ())))
    )
    raise ConfigurationError(
        f"--fix {parameter.name}={value}: this is not a value of {parameter.name}.",
        f"{meant}{parameter.name} takes {_describe(parameter)}.",
    )


def _is_possible(parameter: Hyperparameter, number: float) -> bool:
    """Check a number: counts are integers, 0 is allowed only if it is searched, shares are below 1."""
    if not 0 <= number <= MAX_HYPERPARAMETER:
        return False
    if isinstance(plain(parameter.default_value), int) and not float(number).is_integer():
        return False
    if number == 0:
        return not hasattr(parameter, "log") and 0 in values_of(parameter)
    return number < 1 or not parameter.name.endswith(SHARES)


def _describe(parameter: Hyperparameter) -> str:
    if hasattr(parameter, "log"):
        return f"numbers such as {parameter.lower:g} to {parameter.upper:g}"
    return ", ".join(map(str, (*values_of(parameter), *ONLY_FIXED.get(parameter.name, ()))))


def plain(value: Any) -> Scalar:
    """Convert to a Python scalar, rounding floats to four significant digits for readability."""
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.4g}") if isinstance(value, float) else value


def unflagged(error: ConfigurationError) -> ConfigurationError:
    """Return an error about a hyperparameter that comes from no flag, without ``--fix`` in its text."""
    what = error.what.removeprefix("--fix").lstrip(": ")
    return ConfigurationError(what, error.hint.replace("--fix ", ""))
