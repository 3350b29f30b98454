"""Tunecast picks the right finetuning for an LLM and runs it."""

__version__ = "0.1.0"
