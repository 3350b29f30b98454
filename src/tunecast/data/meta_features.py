"""Derives meta-features of a dataset from its raw facts alone, so that they can be recomputed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunecast.data.characters import SCRIPTS

DEPENDENCE = "prompt_completion_dependence"
"""Name of the result of :func:`tunecast.data.dependence.dependence`; absent without a verdict."""

META_FEATURES_VERSION = 2

Facts = Mapping[str, Any]


def derive(facts: Facts) -> dict[str, float]:
    """Derive finite meta-features from the facts that :func:`tunecast.data.facts.collect` returns.

    Names that begin with ``log_`` are natural logarithms of 1 + a count. Names that end in ``_share`` or
    ``_ratio`` lie between 0 and 1, except that a compression ratio may exceed 1 on very short text.
    """
    features = {"log_examples": math.log1p(facts["examples"])}
    for side in ("prompt", "completion"):
        features.update({f"{side}_{name}": value for name, value in _side(facts, side).items()})
    features.update(_completions(facts))
    features.update(_prompts(facts))
    features.update(_conversation(facts))
    prompt, completion = (facts[side]["tokens"]["total"] for side in ("prompt", "completion"))
    features["completion_tokens_share"] = _ratio(completion, prompt + completion)
    if (deviations := facts.get("dependence")) is not None:
        features[DEPENDENCE] = deviations
    return features


def _side(facts: Facts, side: str) -> dict[str, float]:
    of = facts[side]
    tokens, counted = of["tokens"], of["words"]["total"]
    features = {
        "log_tokens_mean": tokens["mean_log1p"],
        "log_tokens_deviation": tokens["deviation_log1p"],
        "log_tokens_p10": math.log1p(tokens["percentiles"]["10"]),
        "log_tokens_p50": math.log1p(tokens["percentiles"]["50"]),
        "log_tokens_p90": math.log1p(tokens["percentiles"]["90"]),
        "log_tokens_p99": math.log1p(tokens["percentiles"]["99"]),
        "log_bytes_mean": facts["sizes"][side]["bytes"]["mean_log1p"],
        "tokens_per_word": _ratio(tokens["total"], counted),
        "characters_per_word": _ratio(of["word_characters"], counted),
        "log_distinct_words": math.log1p(of["distinct_words"]),
        "log_distinct_tokens": math.log1p(of["distinct_tokens"]),
        "type_token_ratio": _ratio(of["window"]["distinct_words"], of["window"]["words"]),
        "words_seen_once_share": _ratio(of["words_seen_once"], of["distinct_words"]),
        "word_entropy_nats": of["word_entropy_nats"],
        "compression_ratio": _ratio(of["compressed"]["compressed_bytes"], of["compressed"]["bytes"]),
    }
    return features | _characters(of["characters"])


def _characters(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    letters = {script: sum(counts.get(kind, 0) for kind in kinds) for script, kinds in SCRIPTS.items()}
    written = sum(letters.values())
    shares = {f"{script}_share": _ratio(number, written) for script, number in letters.items()}
    for kind in ("digit", "punctuation", "code", "line_break"):
        shares[f"{kind}_share"] = _ratio(counts.get(kind, 0), total)
    shares["upper_case_share"] = _ratio(counts.get("latin_upper", 0), letters["latin"])
    return shares


def _completions(facts: Facts) -> dict[str, float]:
    of, examples = facts["completions"], facts["examples"]
    largest = math.log(examples) if examples > 1 else 1.0
    return {
        "log_distinct_completions": math.log1p(of["distinct"]),
        "distinct_completions_share": _ratio(of["distinct"], examples),
        "repeated_completions_share": 1.0 - _ratio(of["seen_once"], examples),
        "label_entropy_nats": of["entropy_nats"],
        "label_entropy_ratio": of["entropy_nats"] / largest,
        "top_completion_share": _ratio(of["top_counts"][0], examples),
        "top_ten_completions_share": _ratio(sum(of["top_counts"][:10]), examples),
        "copied_words_share": facts["copied"]["mean_share"],
        "wholly_copied_share": _ratio(facts["copied"]["whole"], facts["sampled_examples"]),
    }


def _prompts(facts: Facts) -> dict[str, float]:
    of = facts["prompts"]
    return {
        "repeated_prompts_share": 1.0
        - _ratio(facts["conversation"]["distinct_prompt_keys"], facts["examples"]),
        "prompt_common_beginning_share": of["common_beginning_share"],
        "prompt_common_end_share": of["common_end_share"],
    }


def _conversation(facts: Facts) -> dict[str, float]:
    of, examples = facts["conversation"], facts["examples"]
    turns = sum(int(count) * number for count, number in of["turns"].items())
    return {
        "turns_mean": _ratio(turns, examples),
        "multi_turn_share": _ratio(of["several_trained_turns"], examples),
        "system_turn_share": _ratio(of["with_system_turn"], examples),
        "without_prompt_share": _ratio(of["without_prompt"], examples),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
