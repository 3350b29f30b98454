"""Writes pipelines and data in the formats of other trainers: TRL, Unsloth, Axolotl, LLaMA-Factory."""

from tunecast.exporters.files import TRAINERS, export
from tunecast.exporters.job import ExportJob, prepare_job

__all__ = ["TRAINERS", "ExportJob", "export", "prepare_job"]
