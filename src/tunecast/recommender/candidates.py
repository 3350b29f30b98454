"""The pipelines to recommend from: a small grid, and the learning rates to try for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunecast.errors import ConfigurationError
from tunecast.methods import BASELINE, Restrictions, get_method
from tunecast.methods.rates import adapter_rate
from tunecast.methods.targets import why_not_linear
from tunecast.predictor.language_law import excess_share
from tunecast.predictor.rate_law import KNOWS_LITTLE, RateLaw
from tunecast.records import ModelFacts, Pipeline, Scalar

METHODS = ("lora", "full", "ia3", "qlora")
"""Methods that are recommended by default: those with the most measured runs. ``--methods`` adds others."""
RANKS = (8, 16, 32, 64)
BATCHES = (4, 8, 16, 32)
ALPHA = 32
MULTIPLES = (1.0, 3.0, 1 / 3)
"""Learning rates to try, over the one that suits a pipeline."""
PLAIN = Pipeline("lora", {})
"""LoRA as it is usually trained."""
SHARED = (
    "optim",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_ratio",
    "max_grad_norm",
    "neftune_noise_alpha",
)


def grid(model: ModelFacts, device: str, restrictions: Restrictions) -> list[Pipeline]:
    """Return candidates within the user's restrictions; four-bit training needs a ``cuda`` device.

    They have no learning rate unless the user fixed it; see :func:`rates`.

    Raises:
        ConfigurationError: A method or hyperparameter does not exist, a value is not one of its
            hyperparameter, or nothing is left.
    """
    for name in restrictions.methods:
        get_method(name)
    allowed = restrictions.methods or METHODS
    unsuitable = why_not_linear(model, "QLoRA")
    names = [name for name in allowed if name != "qlora" or (device == "cuda" and not unsuitable)]
    if not names and unsuitable:
        raise ConfigurationError(f"--methods: qlora does not suit {model.name}: {unsuitable}.", "Allow lora.")
    if not names:
        raise ConfigurationError("--methods: qlora needs CUDA.", "Name an accelerator with --gpu.")
    if restrictions.fixed or restrictions.devices > 1:
        from tunecast.methods.space import check_restrictions

        # It refuses names that no method has. Without CUDA it has no QLoRA, whose names are LoRA's.
        known = tuple(dict.fromkeys("lora" if name == "qlora" else name for name in names))
        check_restrictions(model, Restrictions(known, restrictions.fixed, devices=restrictions.devices))
    found: dict[str, Pipeline] = {}
    for name in names:
        fixed = _fixed_for("lora" if name == "qlora" else name, model, restrictions.fixed)
        for values in _values(name, model):
            pipeline = Pipeline(name, {**values, **fixed})
            found.setdefault(pipeline.id, pipeline)
    return list(found.values())


def rates(
    law: RateLaw, model: ModelFacts, pipeline: Pipeline, steps: int, bounds: tuple[float, float]
) -> list[float]:
    """Return learning rates to try within bounds: the one that suits a pipeline, then others around it."""
    centre, (low, high) = suitable_rate(law, model, pipeline, steps), bounds
    return list(dict.fromkeys(min(max(float(f"{m * centre:.2g}"), low), high) for m in MULTIPLES))


def suitable_rate(law: RateLaw, model: ModelFacts, pipeline: Pipeline, steps: int) -> float:
    """Return the learning rate that suits a pipeline by the law of rates.

    That law does not hold for models that know little of language. Theirs is the usual rate of LoRA at their
    width, times what the law says of the pipeline beside plain LoRA.
    """
    found = law.recommended(model, pipeline, steps)
    if excess_share(model) <= KNOWS_LITTLE:
        return found
    return found * adapter_rate(model) / law.recommended(model, PLAIN, steps)


def _values(name: str, model: ModelFacts) -> Iterator[dict[str, Scalar]]:
    """Yield the hyperparameters of a method's candidates, without the learning rate."""
    if name not in METHODS:
        from tunecast.methods import baseline_pipeline

        default = baseline_pipeline(model, Restrictions(methods=(name,)))
        yield {key: value for key, value in default.hyperparameters.items() if key != "learning_rate"}
        return
    shared = {key: BASELINE[key] for key in SHARED}
    for batch in BATCHES:
        common: dict[str, Scalar] = {**shared, "per_device_train_batch_size": batch}
        if name not in ("lora", "qlora"):
            yield common
            continue
        for rank in RANKS:
            yield {
                "lora_r": rank,
                "lora_alpha": ALPHA,
                "lora_dropout": 0.0,
                "target_modules": "all-linear",
                "use_rslora": False,
                **({"use_dora": False, "init_lora_weights": "default"} if name == "lora" else {}),
                **common,
            }


def _fixed_for(method: str, model: ModelFacts, fixed: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the user's fixed values of a method's own hyperparameters, checked by the space of pipelines."""
    if not fixed:
        return {}
    from tunecast.methods import baseline_pipeline, pipeline_space
    from tunecast.methods.space import CHECKPOINTING

    asked = {name: fixed[name] for name in (CHECKPOINTING,) if name in fixed}
    space = pipeline_space(model, Restrictions((method,), asked))
    known = {name.removeprefix(f"{method}:") for name in space}
    # A rate has names of its own by optimiser, and is every method's.
    own = {name: value for name, value in fixed.items() if name == "learning_rate" or name in known}
    baseline = baseline_pipeline(model, Restrictions((method,), own))
    return {name: baseline[name] for name in own if name in baseline.hyperparameters}
