"""Shapes of base models in published tables that the tables leave out, from the makers' configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """Columns of the layout of published tables; ``feed_forward_width`` is an expert's in a mixture."""

    feed_forward_width: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied_embeddings: bool
    experts: int = 0
    experts_per_token: int = 0

    def cells(self) -> dict[str, str]:
        """Return the cells of a row; numbers of experts only for a mixture."""
        return {name: str(value).lower() for name, value in self._asdict().items() if value or value is False}


_QWEN3_8B = Shape(12_288, 32, 8, 151_936, False)
_QWEN3_30B = Shape(768, 32, 4, 151_936, False, 128, 8)
_QWEN3_235B = Shape(1_536, 64, 4, 151_936, False, 128, 8)
_MISTRAL_7B = Shape(14_336, 32, 8, 32_000, False)

SHAPES: Mapping[str, Shape] = {
    "HuggingFaceH4/zephyr-7b-beta": _MISTRAL_7B,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": _QWEN3_235B,
    "Qwen/Qwen3-30B-A3B": _QWEN3_30B,
    "Qwen/Qwen3-30B-A3B-Base": _QWEN3_30B,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": _QWEN3_30B,
    "Qwen/Qwen3-32B": Shape(25_600, 64, 8, 151_936, False),
    "Qwen/Qwen3-4B-Instruct-2507": Shape(9_728, 32, 8, 151_936, True),
    "Qwen/Qwen3-8B": _QWEN3_8B,
    "Qwen/Qwen3-8B-Base": _QWEN3_8B,
    "Qwen/Qwen3-VL-235B-A22B-Instruct": _QWEN3_235B,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": _QWEN3_30B,
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": Shape(5_632, 32, 4, 32_000, False),
    "alirezamsh/small100": Shape(4_096, 16, 16, 128_112, True),
    "distilbert-base-uncased": Shape(3_072, 12, 12, 30_522, True),
    "facebook/m2m100_1.2B": Shape(8_192, 16, 16, 128_112, True),
    "facebook/nllb-200-distilled-1.3B": Shape(8_192, 16, 16, 256_206, True),
    "google/flan-t5-large": Shape(2_816, 16, 16, 32_128, False),
    "google/gemma-2-2b": Shape(9_216, 8, 4, 256_000, True),
    "google/gemma-2b": Shape(16_384, 8, 1, 256_000, True),
    "meta-llama/Llama-2-7b-hf": Shape(11_008, 32, 32, 32_000, False),
    "meta-llama/Llama-3.2-1B": Shape(8_192, 32, 8, 128_256, True),
    "meta-llama/Llama-3.2-3B": Shape(8_192, 24, 8, 128_256, True),
    "meta-llama/Meta-Llama-3-8B": Shape(14_336, 32, 8, 128_256, False),
    "microsoft/phi-2": Shape(10_240, 32, 32, 51_200, False),
    "openai/gpt-oss-120b": Shape(2_880, 64, 8, 201_088, False, 128, 4),
    "openai/gpt-oss-20b": Shape(2_880, 64, 8, 201_088, False, 32, 4),
    "stabilityai/stablelm-base-alpha-3b": Shape(16_384, 32, 32, 50_688, False),
    "tiiuae/falcon-7b": Shape(18_176, 71, 1, 65_024, True),
    "togethercomputer/RedPajama-INCITE-Base-3B-v1": Shape(10_240, 32, 32, 50_432, False),
    "unsloth/Mistral-7B-v0.2": _MISTRAL_7B,
}
