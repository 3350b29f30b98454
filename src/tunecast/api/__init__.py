"""Tunecast's main work as functions, which the commands of the same names call.

The other commands call the packages that do their work; ``resolve`` is ``tune --dry-run``, and ``predict`` is
for programs alone. Where the user can fix a problem, they raise a :class:`~tunecast.errors.UserError`.
"""

from tunecast.api.asking import classify, evaluate, generate, predict, recommend
from tunecast.api.handing_over import export, export_gguf, merge, push
from tunecast.api.planning import resolve
from tunecast.api.tuning import train, tune

__all__ = [
    "classify",
    "evaluate",
    "export",
    "export_gguf",
    "generate",
    "merge",
    "predict",
    "push",
    "recommend",
    "resolve",
    "train",
    "tune",
]
