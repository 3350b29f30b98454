"""The tuning session: budget, loop, workers."""
