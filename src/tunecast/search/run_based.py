"""What strategies that look up recorded runs of other tasks have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.fixed_order import Order, as_listed, in_order
from tunecast.search.history import Policy
from tunecast.search.strategy import Strategy


class RunBased(Strategy):
    """Brings candidates to their end in an order that it looks up in recorded runs of other tasks."""

    knows = "runs"

    only_listed: ClassVar[bool] = False
    """Whether it stops after the candidates that its order lists; otherwise the others follow."""

    @abstractmethod
    def find_order(self, context: Context) -> Order:
        """Return the order that the recorded runs of a context suggest."""

    def policy(self, context: Context) -> Policy:
        """See :func:`in_order`; the order is the one that the session saved when it began."""
        order = self.find_order(context) if context.listed is None else as_listed(context.listed)
        return in_order(order, only_listed=self.only_listed)

    def order(self, context: Context, pipelines: Sequence[Pipeline]) -> list[str]:
        """Return the ids of candidates in their order; it may depend on which candidates there are."""
        return list(dict.fromkeys(pipelines[place].id for place in self.find_order(context)(pipelines)))
