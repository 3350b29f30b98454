"""Telling datasets that are made of something unknown."""

from __future__ import annotations

import numpy as np
import pytest

from tunecast.data.meta_features import DEPENDENCE
from tunecast.predictor.novelty import Novelty


def datasets(count: int, seed: int = 0, **changed: float) -> dict[str, dict[str, float]]:
    """Datasets of ordinary words, on any subject."""
    draw = np.random.default_rng(seed)
    return {
        f"d{n}": {
            "prompt_characters_per_word": 4.5 + 0.5 * float(draw.normal()),
            "completion_tokens_per_word": 1.5 + 0.2 * float(draw.normal()),
            "completion_cyrillic_share": 0.0,
            "label_entropy_nats": float(draw.uniform(0, 9)),
            **changed,
        }
        for n in range(count)
    }


def share_new(known: Novelty, some: dict[str, dict[str, float]]) -> float:
    return float(np.mean([known.is_new(one) for one in some.values()]))


def test_other_letters_or_longer_words_are_new_and_other_subjects_are_not() -> None:
    known = Novelty.of(datasets(40).items())
    assert share_new(known, datasets(100, seed=1)) <= 0.2
    assert share_new(known, datasets(100, seed=2, label_entropy_nats=50.0)) <= 0.2
    assert share_new(known, datasets(100, seed=3, prompt_characters_per_word=30.0)) == 1.0
    assert share_new(known, datasets(100, seed=4, completion_cyrillic_share=0.5)) == 1.0


def test_completions_that_have_nothing_to_do_with_their_prompts_are_new() -> None:
    known = Novelty.of(datasets(10).items())
    inside = known.low + (known.high - known.low) / 2
    usual = dict(zip(known.names, inside.tolist(), strict=True))
    assert not known.is_new(usual)
    assert not known.is_new({**usual, DEPENDENCE: 40.0})
    assert known.is_new({**usual, DEPENDENCE: 0.3})


def test_a_known_dataset_is_not_new() -> None:
    known = datasets(5)
    assert Novelty.of(known.items()).distance(known["d2"]) == 0.0


def test_one_known_dataset_or_none_of_the_features_tells_nothing() -> None:
    assert not Novelty.of(datasets(1).items()).is_new(datasets(1, seed=3)["d0"])
    bare = {f"b{n}": {"log_examples": float(n)} for n in range(4)}
    for known in (bare, {}):
        assert not Novelty.of(known.items()).is_new(datasets(1)["d0"])
        assert Novelty.of(known.items()).farthest(datasets(1)["d0"]) == ""


def test_an_unmeasured_meta_feature_makes_no_dataset_new() -> None:
    assert not Novelty.of(datasets(10).items()).is_new({})


def test_put_together_again() -> None:
    known = Novelty.of(datasets(6).items())
    again = Novelty.from_arrays(known.arrays(), known.names)
    unknown = datasets(1, seed=9, prompt_characters_per_word=9.0)["d0"]
    assert again.distance(unknown) == known.distance(unknown) > 0
    assert again.limit == known.limit
    assert again.farthest(unknown) == "prompt_characters_per_word"


def test_datasets_of_one_name_that_tells_nothing_are_several() -> None:
    alike = Novelty.of(("train", one) for one in datasets(10).values())
    apart = Novelty.of(datasets(10).items())
    assert alike.limit == apart.limit < np.inf
    assert alike.scale == pytest.approx(apart.scale)
