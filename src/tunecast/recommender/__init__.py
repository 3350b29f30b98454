"""Recommends pipelines before anything runs: quality, hours, bytes, money and reasons, without torch."""
