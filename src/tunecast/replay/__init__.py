"""Recorded runs as a simulated machine, and strategies compared on it."""
