"""Advice before running: quality, hours, bytes, money and why, in a second or two and without torch."""
