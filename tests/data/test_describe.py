"""The description of a dataset as other parts take it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from transformers import AutoTokenizer

from tunecast.data import describe, read


def test_description(toy_data: Path, tiny_llama: Path) -> None:
    dataset = read(str(toy_data))
    described = describe(dataset, AutoTokenizer.from_pretrained(tiny_llama))
    assert described.name == "colours"
    assert described.format == "prompt-completion"
    assert described.fingerprint == dataset.fingerprint
    assert described.examples == {"train": 128, "validation": 16, "test": 16}
    assert json.loads(json.dumps(asdict(described), allow_nan=False)) == asdict(described)


def test_held_out_splits_are_not_described(toy_data: Path) -> None:
    dataset = read(str(toy_data))
    other = replace(dataset, validation=dataset.test, test=dataset.validation)
    assert describe(other).meta_features == describe(dataset).meta_features


def test_the_same_dataset_gives_the_same_numbers(toy_data: Path) -> None:
    assert describe(read(str(toy_data))) == describe(read(str(toy_data)))
