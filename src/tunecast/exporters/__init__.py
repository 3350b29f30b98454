"""Pipelines and data as other trainers take them: TRL, Axolotl, LLaMA-Factory."""

from tunecast.exporters.files import TRAINERS, export
from tunecast.exporters.job import Work, prepare_work

__all__ = ["TRAINERS", "Work", "export", "prepare_work"]
