"""The features of a trial: named numbers in a fixed order.

A learning rate enters as a multiple of the rate that suits its method, its optimiser and the model's width
(:mod:`tunecast.methods.rates`), losses enter relative to the zero-shot loss, and lengths as numbers of steps
and passes, so that results on one model carry over to a larger one. All features are known before a trial
begins or come from its points; none is computed from weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tunecast.arrays import Floats
from tunecast.methods import central_rate
from tunecast.methods.rates import STEPS_EXPONENT, rate_multiple
from tunecast.predictor.language_law import excess_share, ln_language_loss
from tunecast.predictor.task import TaskDescription
from tunecast.records import ModelFacts, Pipeline, Point

FEATURES_VERSION = 5
"""Incremented when a feature is added or changes its meaning."""
MIN_LOSS = 0.01
"""Floor of losses in nats per label token before taking logarithms: a memorised task has a loss of 0."""

METHODS = (
    "full",
    "lora",
    "ia3",
    "top_layers",
    "vera",
    "ln_tuning",
    "oft",
    "prefix_tuning",
    "prompt_tuning",
    "adalora",
    "lokr",
    "apet",
    "gmt",
    "semantic_freezing",
    "mezo",
)
"""Methods with their own feature; others are described by what they have in common with these."""
OF_WEIGHTS = ("full", "top_layers", "gmt", "semantic_freezing")
"""Methods that train the model's own matrices: at about a tenth of an adapter's rate."""
LOW_RANK = ("lora", "adalora", "lokr", "apet", "qlora")
RANKS = ("lora_r", "target_r", "lokr_r", "budget_r")
"""Hyperparameters that are an adapter's rank, by method."""
OPTIMIZERS = ("adafactor", "sgd", "lion", "muon")
"""AdamW is the one without its own feature."""
SCHEDULES = ("linear", "constant", "warmup_stable_decay")

PIPELINE = (
    *(f"method_{name}" for name in METHODS),
    "trains_weights",
    "low_rank",
    *(f"optimizer_{name}" for name in OPTIMIZERS),
    *(f"schedule_{name}" for name in SCHEDULES),
    "log_rate",
    "log_scale",
    "log_effective_rate",
    "log_rank",
    "log_trainable_share",
    "dropout",
    "attention_only",
    "rslora",
    "dora",
    "pissa",
    "log_plus_ratio",
    "warmup",
    "weight_decay",
    "log_batch",
    "neftune",
    "label_smoothing",
)
"""Features of the pipeline on its model."""
COURSE = ("log_steps", "log_tokens_per_update", "log_travel", "surplus", "surplus_above", "surplus_below")
"""Features of pipeline and setting together.

``log_travel`` is the rate's multiple times the steps. ``surplus`` compares the rate with the best one, which
falls with the number of steps. Its squares on either side are apart, because a rate above the best one costs
otherwise than one below.
"""
DATASET = (
    "log_examples",
    "prompt_log_tokens_mean",
    "prompt_log_tokens_deviation",
    "prompt_type_token_ratio",
    "prompt_compression_ratio",
    "completion_log_tokens_mean",
    "completion_log_tokens_deviation",
    "completion_type_token_ratio",
    "completion_compression_ratio",
    "completion_digit_share",
    "completion_tokens_share",
    "distinct_completions_share",
    "label_entropy_nats",
    "top_completion_share",
    "copied_words_share",
    "log_distinct_completions",
    "prompt_log_bytes_mean",
    "completion_log_bytes_mean",
)
"""Meta-features of the dataset that are used, by their own names; a missing one is 0."""
SETTING = (
    *(f"dataset_{name}" for name in DATASET),
    "log_zero_shot",
    "log_zero_shot_per_byte",
    "log_bytes_per_token",
    "log_compressed_bits",
    "log_full_length",
    "log_unique_examples",
    "log_unique_completion_tokens",
    "log_epochs",
    "log_parameters",
    "log_width",
    "log_layers",
    "log_vocabulary",
    "log_pretraining_ratio",
    "log_language_loss",
    "language_left",
    "encoder_decoder",
)
"""Features that all trials of a session share."""
CURVE = (
    "share",
    "log_share",
    "log_loss",
    "log_loss_before",
    "log_share_before",
    "slope",
    "log_best_loss",
    "rate_now",
    "points",
    "gap",
)
"""Features of the points so far; before the first, those of the zero-shot point."""
FEATURES = (*PIPELINE, *COURSE, *SETTING, *CURVE)

RATE = "learning_rate"
START_SHARE = 1 / 128
"""Half the first fidelity, used for a share of 0 in logarithms."""
BLANK = (0.0, math.log(START_SHARE), 0.0, 0.0, math.log(START_SHARE), 0.0, 0.0, 1.0, 0.0, 0.0)
"""Features of a curve without points."""
MIN_RATIO = 0.005
"""Floor of a compression ratio."""
SMALL_SHARE = 1e-3
"""Trainable share of methods that train vectors, prompts or norms."""


def _flags(names: Sequence[str]) -> tuple[dict[str, tuple[float, ...]], tuple[float, ...]]:
    """Return one-hot rows by name, and the row of zeros for any other name."""
    return {name: tuple(float(name == other) for other in names) for name in names}, (0.0,) * len(names)


_METHOD_FLAGS, _NO_METHOD = _flags(METHODS)
# What random directions train matters less than that they are random.
_METHOD_FLAGS |= dict.fromkeys(("mezo_lora", "mezo_prefix"), _METHOD_FLAGS["mezo"])
_OPTIMIZER_FLAGS, _NO_OPTIMIZER = _flags(OPTIMIZERS)
_SCHEDULE_FLAGS, _NO_SCHEDULE = _flags(SCHEDULES)


def columns(names: Sequence[str]) -> list[int]:
    """Return the indices of features in a row."""
    return [FEATURES.index(name) for name in names]


def feature_rows(
    task: TaskDescription, pipelines: Sequence[Pipeline], curves: Sequence[Sequence[Point]] | None = None
) -> Floats:
    """Return features of trials of one session, shape (trials, features), in the order of :data:`FEATURES`.

    ``curves`` are the points so far; None if no trial has started. With points, the zero-shot loss is known.
    """
    rows = np.array([pipeline_row(pipeline, task.model) for pipeline in pipelines])
    if curves is None:
        return joined(task, rows)
    rates = [_number(pipeline.hyperparameters, RATE) for pipeline in pipelines]
    seen = [curve_row(curve, task.start_loss, rate) for curve, rate in zip(curves, rates, strict=True)]
    return joined(task, rows, np.array(seen))


def joined(task: TaskDescription, pipelines: Floats, curves: Floats | None = None) -> Floats:
    """Join rows of :func:`pipeline_row` and :func:`curve_row`, which may have been computed earlier.

    Without ``curves``, no trial has started.
    """
    if curves is None:
        curves = np.tile(BLANK, (len(pipelines), 1))
    mean_tokens = task.mean_tokens
    log_batch = pipelines[:, PIPELINE.index("log_batch")]
    per_update = log_batch + math.log(mean_tokens)
    # A batch cannot be larger than the data.
    per_update = np.minimum(per_update, math.log(mean_tokens * max(1, task.unique_examples)))
    steps = np.maximum(math.log(task.full_length_tokens) - per_update, 0.0)
    rate = pipelines[:, PIPELINE.index("log_effective_rate")]
    surplus = rate + STEPS_EXPONENT * steps
    above, below = np.maximum(surplus, 0.0) ** 2, np.minimum(surplus, 0.0) ** 2
    course = np.stack([steps, per_update, rate + steps, surplus, above, below], axis=1)
    shared = np.broadcast_to(_task_row(task, mean_tokens), (len(pipelines), len(SETTING)))
    return np.concatenate([pipelines, course, shared, curves], axis=1)


def pipeline_row(pipeline: Pipeline, model: ModelFacts) -> list[float]:
    """Return features of a pipeline on a model, in the order of :data:`PIPELINE`."""
    values = pipeline.hyperparameters
    method = pipeline.method
    optimizer = str(values.get("optim", "adamw"))
    schedule = str(values.get("lr_scheduler_type", "cosine"))
    low_rank = method in LOW_RANK
    rank = _rank(values) if low_rank else 0.0
    scale = _scale(values, rank) if low_rank else 1.0
    rate = _number(values, RATE) or 1e-12
    log_rate = math.log(rate / rate_multiple(values) / central_rate(method, model))
    return [
        *_METHOD_FLAGS.get(method, _NO_METHOD),
        float(method in OF_WEIGHTS),
        float(low_rank),
        *_OPTIMIZER_FLAGS.get(optimizer, _NO_OPTIMIZER),
        *_SCHEDULE_FLAGS.get(schedule, _NO_SCHEDULE),
        log_rate,
        math.log(scale),
        log_rate + math.log(scale / 2.0 if low_rank else 1.0),
        math.log(rank) if rank > 0 else 0.0,
        math.log(_trainable_share(method, values, rank, model)),
        _number(values, "lora_dropout"),
        float(values.get("target_modules") == "attention"),
        float(bool(values.get("use_rslora", False))),
        float(bool(values.get("use_dora", False))),
        float(values.get("init_lora_weights") == "pissa"),
        math.log(_number(values, "loraplus_ratio") or 1.0),
        _number(values, "warmup_ratio"),
        _number(values, "weight_decay"),
        math.log(_number(values, "per_device_train_batch_size") or 16.0),
        _number(values, "neftune_noise_alpha") / 5.0,
        _number(values, "label_smoothing"),
    ]


def curve_row(curve: Sequence[Point], zero_shot_loss: float, peak_rate: float = 0.0) -> list[float]:
    """Return features of a partial curve, in the order of :data:`CURVE`.

    Args:
        curve: Points in order, without the zero-shot point; empty for a trial that has not started.
        zero_shot_loss: Nats per label token before training.
        peak_rate: The trial's learning rate; at least the highest rate seen is used.
    """
    if not curve:
        return list(BLANK)
    start = log_loss(zero_shot_loss)
    last = curve[-1]
    before_share = curve[-2].share if len(curve) > 1 else START_SHARE
    before = log_loss(curve[-2].validation.loss) - start if len(curve) > 1 else 0.0
    now = log_loss(last.validation.loss) - start
    best = min(log_loss(point.validation.loss) for point in curve) - start
    log_share, log_before = math.log(last.share), math.log(before_share)
    peak = max(peak_rate, *(point.learning_rate for point in curve))
    train = last.train_loss
    gap = log_loss(last.validation.loss) - log_loss(train) if train is not None else 0.0
    return [
        last.share,
        log_share,
        now,
        before,
        log_before,
        (now - before) / max(log_share - log_before, 0.1),
        best,
        last.learning_rate / peak if peak > 0 else 0.0,
        float(len(curve)),
        gap,
    ]


def log_loss(loss: float) -> float:
    """Return the logarithm of a loss, with a floor of :data:`MIN_LOSS` and a cap of 50 nats."""
    return math.log(min(max(loss, MIN_LOSS), 50.0)) if math.isfinite(loss) else math.log(50.0)


def standardised(rows: Floats) -> Floats:
    """Scale columns of shape (rows, features) to mean 0 and deviation 1; constant columns become 0."""
    deviation = rows.std(axis=0)
    return np.asarray((rows - rows.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1.0))


def _log_compressed_bits(task: TaskDescription) -> float:
    """Return the logarithm of the completions' compressed bits per byte; 0 if not measured."""
    ratio = task.dataset.meta_features.get("completion_compression_ratio", 0.0)
    return math.log(8 * max(ratio, MIN_RATIO)) if ratio > 0 else 0.0


def _task_row(task: TaskDescription, mean_tokens: float) -> list[float]:
    model, features = task.model, task.dataset.meta_features
    unique = max(1, task.unique_examples)
    # An unknown loss has the same features as one of 1 nat; another forest learned from such rows.
    is_known = task.zero_shot_loss is not None
    start = log_loss(task.start_loss) if is_known else 0.0
    per_token = task.log_bytes_per_token
    return [
        *(float(features.get(name, 0.0)) for name in DATASET),
        start,
        start - per_token if is_known else 0.0,
        per_token,
        _log_compressed_bits(task),
        math.log(task.full_length_tokens),
        math.log(unique),
        features.get("completion_log_tokens_mean", 0.0) + math.log(unique),
        math.log(task.full_length_tokens / (unique * mean_tokens)),
        math.log(model.parameters),
        math.log(model.width),
        math.log(model.layers),
        math.log(model.vocabulary),
        math.log(model.likely_pretraining_tokens / model.parameters),
        ln_language_loss(model),
        excess_share(model),
        float(model.architecture == "encoder-decoder"),
    ]


def _scale(values: Mapping[str, object], rank: float) -> float:
    """Return the scale of an adapter: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
    alpha = _number(values, "lora_alpha")
    given = _number(values, "adalora_scale") or _number(values, "lokr_scale")
    if given > 0:
        return given
    if alpha <= 0 or rank <= 0:
        return 2.0
    return alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)


def _trainable_share(method: str, values: Mapping[str, object], rank: float, model: ModelFacts) -> float:
    """Return the share of trained parameters by the shapes of layers; approximate for some methods."""
    if method in ("full", "gmt", "mezo"):
        return 1.0
    if method in OF_WEIGHTS:
        return min(1.0, max(1.0, _number(values, "trained_layers")) / model.layers)
    if method not in LOW_RANK or rank <= 0:
        return SMALL_SHARE
    attention = 4 * 2 * model.width
    feed_forward = 3 * (model.width + model.feed_forward_width)
    both = attention + (0 if values.get("target_modules") == "attention" else feed_forward)
    return min(1.0, rank * model.layers * both / model.parameters)


def _rank(values: Mapping[str, object]) -> float:
    return next((found for name in RANKS if (found := _number(values, name)) > 0), 0.0)


def _number(values: Mapping[str, object], name: str) -> float:
    value = values.get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0
