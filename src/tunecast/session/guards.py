"""Guards: datasets that the user's model must keep. They are scored, and nothing is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast import data
from tunecast.data.lm_eval_tasks import PREFIX, is_lm_eval, lm_eval_examples
from tunecast.data.suites import SUITES, suite
from tunecast.errors import ConfigurationError, DataError, did_you_mean
from tunecast.paths import expanded
from tunecast.records import ModelFacts
from tunecast.training.losses import Loss

if TYPE_CHECKING:
    from tunecast.data import EncodedExample, Example

MAX_EXAMPLES = 5000
"""Maximum examples of a guard that are encoded, from which :func:`affordable` chooses."""
MIN_EXAMPLES = 16
"""Examples of a guard that are scored in any case, if it has them."""


@dataclass(frozen=True)
class Guard:
    """A dataset that the user's model must keep, its examples in random order."""

    name: str
    examples: tuple[EncodedExample, ...]


def read_guards(
    sources: Sequence[str], tokenizer: Any, facts: ModelFacts, loss: Loss, seed: int
) -> tuple[Guard, ...]:
    """Read guards: whole files, validation splits of other datasets, parts of suites, and tasks of lm-eval.

    Raises:
        ConfigurationError: A source is no file, folder, id of a dataset, suite or task of lm-eval.
        DataError: One cannot be read, or nothing of it can be scored.
    """
    guards = []
    for source in sources:
        for name, examples, longest in _examples(source, tokenizer, facts, seed):
            chosen = data.spread(examples, seed)[:MAX_EXAMPLES]
            encoded = loss.encode(chosen, tokenizer, max_length=longest, architecture=facts.architecture)
            if not encoded:
                raise DataError(f"--guard {source}: no completion of {name} fits the model's context.")
            if len(encoded) == 1:
                raise DataError(
                    f"--guard {source}: {name} has a single example, which says nothing of the spread.",
                    f"Give {MIN_EXAMPLES} examples or more.",
                )
            guards.append(Guard(name, tuple(encoded)))
    names = [guard.name for guard in guards]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(
            f"--guard: two guards are called {min(doubled)!r}.", "Give each once, or rename the file."
        )
    return tuple(guards)


def _examples(
    source: str, tokenizer: Any, facts: ModelFacts, seed: int
) -> list[tuple[str, tuple[Example, ...], int]]:
    """Return the name, the examples and the longest sequence of each part of a source."""
    context = min(facts.context or data.LONGEST_BY_DEFAULT, data.LONGEST_BY_DEFAULT)
    if source in SUITES and not expanded(source).exists():
        return [(f"{source}/{part}", examples, context) for part, examples in suite(source, seed).items()]
    if is_lm_eval(source):
        return [(name, examples, context) for name, examples in lm_eval_examples(source).items()]
    _check_source(source)
    try:
        scored = data.ALL if expanded(source).is_file() else "validation"
        dataset = data.read(source, seed=seed, scored=scored)
    except DataError as error:
        hint = error.hint.replace(
            "name other columns with --prompt-column and --completion-column",
            "--prompt-column and --completion-column are for --data alone",
        )
        raise DataError(f"--guard {source}: {error.what}", hint) from None
    return [(dataset.name, dataset.validation, context)]


def _check_source(source: str) -> None:
    """Refuse a plain word that names nothing, such as a suite that does not exist."""
    known = [*SUITES, "stdlib"]
    if source not in known and not expanded(source).exists() and not (Path(source).suffix or "/" in source):
        raise ConfigurationError(
            f"--guard {source!r}: there is no such file, folder or suite.",
            f"{did_you_mean(source, known)}Suites: {', '.join(SUITES)}, and {PREFIX}TASK for lm-eval's.",
        )


def affordable(guards: Sequence[Guard], validation: Sequence[EncodedExample]) -> tuple[Guard, ...]:
    """Shorten guards so that scoring all of them takes about as long as scoring the validation examples.

    Each keeps an equal share of the validation examples' tokens, and at least :data:`MIN_EXAMPLES` examples.
    """
    if not guards:
        return ()
    tokens = sum(example.tokens for example in validation) / len(guards)
    return tuple(Guard(guard.name, _within(guard.examples, tokens)) for guard in guards)


def _within(examples: tuple[EncodedExample, ...], tokens: float) -> tuple[EncodedExample, ...]:
    fitting = int(np.searchsorted(np.cumsum([example.tokens for example in examples]), tokens, side="right"))
    return examples[: max(MIN_EXAMPLES, fitting)]
