"""Datasets: read, detect the format, check, split, template and mask, describe."""

from tunecast.data.check import CheckReport, Lengths, check
from tunecast.data.describe import describe
from tunecast.data.encode import EncodedExample, encode, encode_prompt, encoding_warnings
from tunecast.data.examples import Dataset, Example, Turn, reference
from tunecast.data.length import fitting_length, spread
from tunecast.data.read import read

__all__ = [
    "CheckReport",
    "Dataset",
    "EncodedExample",
    "Example",
    "Lengths",
    "Turn",
    "check",
    "describe",
    "encode",
    "encode_prompt",
    "encoding_warnings",
    "fitting_length",
    "read",
    "reference",
    "spread",
]
