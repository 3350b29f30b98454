"""The HTML report and the model card of a session.

Importing this package is cheap; plotly and jinja2 are imported when a report is written.
"""

from tunecast.report.card import model_card
from tunecast.report.page import write_report

__all__ = ["model_card", "write_report"]
