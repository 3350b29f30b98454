"""Finetuned models for llama.cpp and Ollama: GGUF files, checked against transformers."""

from tunecast.exporters.gguf.tables import check_text
from tunecast.exporters.gguf.types import TYPES, find_type
from tunecast.exporters.gguf.writing import GgufExport, prepare, write

__all__ = ["TYPES", "GgufExport", "check_text", "find_type", "prepare", "write"]
