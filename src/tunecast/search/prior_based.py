"""Strategies that rest on a trained prior: ``transfer`` and ``quick-tune``.

The module is light; :mod:`tunecast.search.transfer` holds the rule and is imported when it is used.
"""

from __future__ import annotations

from tunecast.search.context import Context
from tunecast.search.history import Policy
from tunecast.search.strategy import Strategy


class Transfer(Strategy):
    """Advances the candidate whose predicted improvement is best worth its seconds; see :func:`transfer`."""

    name = "transfer"
    knows = "prior"
    stops_early = True
    draws = 64
    """Few, in case predictions are wrong: of many drawn ones, the best predicted is mostly the luckiest."""

    learns_residuals = False

    def policy(self, context: Context) -> Policy:
        """See :func:`~tunecast.search.transfer.transfer`."""
        from tunecast.search.transfer import transfer

        return transfer(context, learns_residuals=self.learns_residuals)


class QuickTune(Transfer):
    """``transfer`` with a Gaussian process that learns from the running search where the prior is wrong.

    It is named after Quick-Tune (Arango et al., arXiv 2306.03828), which refits its surrogate to the search.
    Here the surrogate stays as it is; the process learns its residuals, which similar pipelines share.
    """

    name = "quick-tune"
    learns_residuals = True
