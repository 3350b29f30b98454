"""Pipelines and data as other trainers take them: TRL, Axolotl, LLaMA-Factory."""

from tunecast.handover.files import TRAINERS, export
from tunecast.handover.work import Work, prepare_work

__all__ = ["TRAINERS", "Work", "export", "prepare_work"]
