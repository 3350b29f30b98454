"""The role of a strategy, and everything that a session, a replay or a report asks of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.history import Policy

if TYPE_CHECKING:
    from tunecast.methods import Restrictions

Knowledge = Literal["nothing", "runs", "prior"]
"""The knowledge a strategy rests on: nothing, recorded runs of other tasks, or a trained prior."""

SHARE_OF_BUDGET = 0.25
"""A full length is at most this part of the affordable training."""
SHARE_WITH_KNOWLEDGE = 1 / 3
"""A strategy that predicts which candidates are good tries fewer of them, each for longer."""
SHARE_WITHOUT_SEARCH = {"seconds": 0.6, "tokens": 0.9}
"""Part of a budget that all trials together may train for if nothing is searched.

Scoring the base model, the points and the end takes up to 0.47 of the seconds of training, and the last step
begins only if more than its expected seconds are left. Tokens are counted in training alone; the rest is for
the ends of last batches and for a forecast.
"""


class Strategy(ABC):
    """Decides which candidates a session has, and which trial it advances next.

    A strategy keeps no state of a session: :meth:`policy` returns a pure function of the history.
    """

    name: ClassVar[str]
    """The name on the command line and in records."""

    knows: ClassVar[Knowledge] = "nothing"
    """Knowledge that the strategy rests on."""

    trials: ClassVar[int | None] = None
    """Number of first candidates brought to their end without trying others; None if it searches."""

    has_baseline: ClassVar[bool] = True
    """Whether the first candidate is the baseline. Otherwise the user chose the only pipeline."""

    stops_early: ClassVar[bool] = False
    """Whether ``--value`` can end the search before the budget is spent."""

    draws: ClassVar[int] = 256
    """Number of candidates drawn at random."""

    library: ClassVar[str] = ""
    """The package of others whose search it is; comparisons leave such strategies out by default."""

    installation: ClassVar[str] = ""
    """The command that installs the library, if it is not ``pip install`` and the library's name."""

    fixed_pipeline: ClassVar[Pipeline | None] = None
    """For a strategy that trains one known pipeline: the pipeline whose recorded run a replay looks for."""

    @abstractmethod
    def policy(self, context: Context) -> Policy:
        """Return the function that chooses trials on a task.

        Raises:
            ConfigurationError: The context lacks the knowledge that the strategy needs.
        """

    def pinned(self, baseline: Pipeline, restrictions: Restrictions) -> list[Pipeline]:
        """Return the pipelines that stand right behind the baseline and are always kept.

        Raises:
            ConfigurationError: The restrictions exclude such a pipeline.
        """
        return []

    def select(self, context: Context, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
        """Choose which candidates the session keeps, once the full length is known.

        Args:
            pipelines: Candidates that suit the task, without the pinned ones.

        Raises:
            ConfigurationError: The context lacks the knowledge that the strategy needs.
        """
        return list(pipelines)

    def order(self, context: Context, pipelines: Sequence[Pipeline]) -> list[str] | None:
        """Return the ids of candidates in the order of trial, if that is fixed when the session begins."""
        return None

    def share_of_budget(self, unit: str) -> float:
        """Return the part of the budget that the full length of one trial may take.

        The baseline is timed to convert seconds to tokens. Better pipelines may be slower and must reach
        their end too (full finetuning of SmolLM2-135M on two cores takes 1.5 times as long), so budgets in
        seconds get no larger share from knowledge.

        Args:
            unit: ``seconds``, ``tokens`` or ``trials``.
        """
        if self.trials:
            return SHARE_WITHOUT_SEARCH.get(unit, 1.0) / self.trials
        return SHARE_WITH_KNOWLEDGE if self.predicts and unit != "seconds" else SHARE_OF_BUDGET

    @property
    def predicts(self) -> bool:
        """Whether it rests on the trained predictor; recommended pipelines are among its candidates then."""
        return self.knows == "prior"

    @property
    def first_name(self) -> str:
        """Name of the first candidate, which every session trains to its end."""
        return "baseline" if self.has_baseline else self.name
