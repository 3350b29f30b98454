"""A classifier's measures and its confusions, for report, card and terminal."""

from __future__ import annotations

from dataclasses import dataclass

from tunecast.report.numbers import MISSING, decimal
from tunecast.report.tables import Table
from tunecast.report.wording import RIVAL_NAMES, contender_name
from tunecast.results import Classification, SessionRecord

LABELS_SHOWN = 12
"""Labels with a row and a column of their own; all rarer ones share one."""
OTHERS = "all others"
UNSEEN = "not in training"
NAMES = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1", "matthews": "Matthews"}
CALIBRATION = "calibration error"


@dataclass(frozen=True)
class ConfusionRow:
    """The examples of one true label.

    Args:
        counts: Examples by chosen label.
        right: Index of the true label among the chosen ones, None for labels unseen in training.
    """

    label: str
    counts: tuple[int, ...]
    right: int | None

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the row's examples by chosen label, 0 to 1."""
        total = max(sum(self.counts), 1)
        return tuple(count / total for count in self.counts)


@dataclass(frozen=True)
class Confusions:
    """How often each true label (rows) was taken for each label (columns)."""

    chosen: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]

    @property
    def table(self) -> Table:
        """The counts as text."""
        header = ("true label", *(f"chosen: {label}" for label in self.chosen))
        rows = tuple((row.label, *(f"{count:,}" for count in row.counts)) for row in self.rows)
        return Table(header, rows, frozenset(range(1, len(header))))


def measure_name(name: str) -> str:
    """Name a metric of classification in words."""
    return f"F1 of “{name.removeprefix('f1=')}”" if name.startswith("f1=") else NAMES.get(name, name)


def measures_table(record: SessionRecord) -> Table | None:
    """Build the table of all measures by contender and constant answer; None without a classification."""
    rivals = [(contender_name(one), one.classification) for one in record.models]
    rivals += [(RIVAL_NAMES.get(one.name, one.name), one.classification) for one in record.constant_answers]
    rows = [(name, one) for name, one in rivals if one is not None]
    if not rows:
        return None
    header = ("", *map(measure_name, rows[0][1].measures), CALIBRATION)
    cells = tuple((name, *_cells(one)) for name, one in rows)
    names = [name for name, _ in rows]
    winner = next(
        (names.index(contender_name(one)) for one in record.models if one.name == record.winner), None
    )
    note = (
        "The calibration error is the mean distance between how sure a model is of its labels and how often "
        "they are right; lower is better. Everything else is better if higher."
    )
    return Table(header, cells, frozenset(range(1, len(header))), winner, note)


def _cells(one: Classification) -> tuple[str, ...]:
    error = MISSING if one.calibration_error is None else decimal(one.calibration_error)
    return (*map(decimal, one.measures.values()), error)


def winner_classification(record: SessionRecord) -> Classification | None:
    """Return how the delivered model classifies, None if its labels were not measured."""
    winner = record.find_contender(record.winner)
    return winner.classification if winner else None


def confusions(one: Classification) -> Confusions:
    """Lay out the confusion matrix; beyond :data:`LABELS_SHOWN` labels the rarer ones are added up."""
    shown = len(one.labels) if len(one.labels) <= LABELS_SHOWN + 1 else LABELS_SHOWN
    *known, unseen = one.confusion
    rest = known[shown:]
    rows = [
        ConfusionRow(label, _columns(counts, shown), place)
        for place, (label, counts) in enumerate(zip(one.labels[:shown], known[:shown], strict=True))
    ]
    if rest:
        added = tuple(map(sum, zip(*rest, strict=True)))
        rows.append(ConfusionRow(OTHERS, _columns(added, shown), shown))
    if any(unseen):
        rows.append(ConfusionRow(UNSEEN, _columns(unseen, shown), None))
    return Confusions((*one.labels[:shown], *([OTHERS] if rest else [])), tuple(rows))


def _columns(counts: tuple[int, ...], shown: int) -> tuple[int, ...]:
    return (*counts[:shown], *([sum(counts[shown:])] if len(counts) > shown else []))


def classification_line(one: Classification) -> str:
    """Write all measures in one line."""
    parts = [f"{measure_name(name)} {decimal(value)}" for name, value in one.measures.items()]
    if one.calibration_error is not None:
        parts.append(f"{CALIBRATION} {decimal(one.calibration_error)}")
    return ", ".join(parts)
