"""All measures of a classifier on the test split, from the labels that it chose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.results import Classification, SampleOutput
from tunecast.training.label_likelihood import calibration_error
from tunecast.training.label_metrics import LABEL_METRIC_NAMES, OF_ONE_LABEL, confusion_counts
from tunecast.training.metrics import get_metric


def classify(
    outputs: Sequence[SampleOutput], labels: Sequence[str], positive_label: str = ""
) -> Classification | None:
    """Measure chosen labels by every metric of classification.

    Args:
        outputs: What :class:`tunecast.training.answers.Answerer` chose among the labels. Without confidences,
            as of a constant answer, there is no calibration error.
        labels: The labels of the task, the most frequent first.
        positive_label: The label whose F1 is measured too; empty for none.

    Returns:
        The measures, None without outputs.
    """
    if not outputs:
        return None
    predictions = [output.after for output in outputs]
    references = [output.reference for output in outputs]
    names = [*LABEL_METRIC_NAMES, *([f"{OF_ONE_LABEL}{positive_label}"] if positive_label else [])]
    sure = [output.confidence for output in outputs if output.confidence is not None]
    right = np.array([one.strip() == two.strip() for one, two in zip(predictions, references, strict=True)])
    return Classification(
        labels=tuple(labels),
        confusion=tuple(map(tuple, confusion_counts(predictions, references, labels))),
        measures={name: get_metric(name).score(predictions, references) for name in names},
        calibration_error=calibration_error(right, np.array(sure)) if len(sure) == len(outputs) else None,
    )
