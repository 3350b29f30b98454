"""The choice of the loss that a trial minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunecast.methods.restrictions import ANSWER_METRICS, LABEL_METRICS
from tunecast.methods.space import DISTILLATION, HEAD, LABELS, TRAINING_LOSS
from tunecast.records import Pipeline
from tunecast.training.distillation import DistillationLoss
from tunecast.training.losses import COMPLETION, Loss
from tunecast.training.losses.head import HeadLoss
from tunecast.training.losses.labels import LabelLoss
from tunecast.training.metric_loss import AnswerMetricLoss, LabelMetricLoss

if TYPE_CHECKING:
    from tunecast.training.training_task import TrainingTask


def trained_loss(pipeline: Pipeline, measured: Loss, task: TrainingTask, tokenizer: Any) -> Loss:
    """Return the loss that a pipeline minimises: the one that points measure, or what it names.

    Args:
        tokenizer: The model's transformers tokenizer.
    """
    chosen = str(pipeline.hyperparameters.get(TRAINING_LOSS, COMPLETION))
    if chosen == LABELS:
        return LabelLoss([label.ids for label in task.labels])
    if chosen == DISTILLATION:
        return DistillationLoss([label.ids for label in task.labels], task.facts.context)
    if chosen == HEAD:
        return HeadLoss(task.labels)
    if chosen in LABEL_METRICS:
        return LabelMetricLoss(task.labels, chosen)
    if chosen in ANSWER_METRICS:
        longest, context = task.max_new_tokens, task.facts.context
        return AnswerMetricLoss(chosen, tokenizer, longest=longest, context=context)
    return measured
