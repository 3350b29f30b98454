"""Shows what the check of an exported model found."""

from __future__ import annotations

from collections.abc import Callable

from tunecast.exporters.gguf.check import Difference, GgufCheck

ROWS: tuple[tuple[str, Callable[[Difference], str]], ...] = (
    ("loss in transformers (float32)", lambda found: f"{found.loss:.4f}"),
    ("loss in llama.cpp", lambda found: f"{found.loss_there:.4f}"),
    ("log-probability of a token: mean difference", lambda found: f"{found.mean:.4f}"),
    ("log-probability of a token: largest difference", lambda found: f"{found.largest:.4f}"),
    ("same first token", lambda found: f"{found.first_tokens} of {found.examples}"),
    ("same decision to stop", lambda found: f"{found.stops} of {found.examples}"),
)


def check_text(check: GgufCheck) -> str:
    """Return a table of the differences, and what was read as the same tokens."""
    columns = {"finetuned": check.finetuned} | ({"base model": check.base} if check.base else {})
    found = check.finetuned
    lines = [
        f"{check.type}, {found.tokens} label tokens of {found.examples} examples of {check.dataset}:",
        f"{'':47}" + "".join(f"{name:>12}" for name in columns),
    ]
    for name, shown in ROWS:
        lines.append(f"{name:47}" + "".join(f"{shown(one):>12}" for one in columns.values()))
    if check.learned is not None:
        lines.append(
            f"The finetuning changes a token by {check.learned:.4f} nats in transformers, by "
            f"{check.learned_there:.4f} in llama.cpp."
        )
    lines.append(f"{check.prompts_alike} of {found.examples} prompts are read as the same tokens.")
    lines.append(f"llama.cpp {'ends' if check.ends else 'does not end'} an answer at {check.stop}.")
    return "\n".join(lines)
