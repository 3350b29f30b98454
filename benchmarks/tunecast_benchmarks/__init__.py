"""Shared code of the benchmarks: other libraries' searches, statistics, and the record of results."""
