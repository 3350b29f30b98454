"""Checks that models share their tokens: logits can be added only where a row means the same token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunecast.errors import ModelError

SAME_TOKENIZER = "Proxy-tuning adds the logits of models token by token; give models of one tokenizer."


def shared_tokens(tokenizers: Mapping[str, Any]) -> int:
    """Return how many tokens, from id 0 on, are the same in all tokenizers.

    Some of them may have more tokens at the end, if these were added after their training.

    Args:
        tokenizers: Tokenizers of transformers by the name of their model.

    Raises:
        ModelError: A token has another id or is missing in one of them, or the common ones lack the
            end-of-turn token of one.
    """
    texts = {name: _by_id(tokenizer) for name, tokenizer in tokenizers.items()}
    shared = min(1 + max(found) for found in texts.values())
    first, *others = texts
    for other in others:
        for token in range(shared):
            if (one := texts[first].get(token)) != (two := texts[other].get(token)):
                raise ModelError(
                    f"The tokenizers of {first} and {other} differ: token {token} is {one!r} in one, {two!r} "
                    "in the other.",
                    SAME_TOKENIZER,
                )
    for name, tokenizer in tokenizers.items():
        own = sorted(token for token in texts[name] if token >= shared)
        learned = [token for token in own if token not in tokenizer.added_tokens_decoder]
        if learned:
            raise ModelError(
                f"The tokenizers differ: {len(learned)} tokens of {name} are unknown to another model, such "
                f"as {texts[name][learned[0]]!r}.",
                SAME_TOKENIZER,
            )
        if tokenizer.eos_token_id >= shared:
            raise ModelError(
                f"The end-of-turn token {tokenizer.eos_token!r} of {name} is unknown to another model.",
                SAME_TOKENIZER,
            )
    return shared


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {int(token): str(text) for text, token in tokenizer.get_vocab().items()}
