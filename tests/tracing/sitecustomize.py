"""Python imports this as it starts wherever its folder is in ``PYTHONPATH``."""

from __future__ import annotations

from phases import start_trace

start_trace()
