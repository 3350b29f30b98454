"""Proxy-tuning for the ``generate`` of transformers; this file needs only torch and transformers.

    steer = ProxyLogits(expert, anti_expert, 1.0, attention_mask=inputs["attention_mask"])
    base.generate(**inputs, logits_processor=[steer])

Every model reads the tokens with its own prompt, positions and cache. transformers applies temperature, top-k
and top-p after it, to the combined logits (Liu et al., arXiv 2401.08565).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor


def combined(base: Tensor, expert: Tensor, anti_expert: Tensor, alpha: float, vocabulary: int) -> Tensor:
    """Add ``alpha`` times the difference of expert and anti-expert to the base's logits, in float32.

    Args:
        base: Logits of shape (..., rows of the vocabulary), in any type; the others as well, where numbers of
            rows may differ.
        vocabulary: Number of tokens that the models share. Later rows are padding, or tokens of one model.

    Returns:
        Shape (..., vocabulary).
    """
    base, expert, anti_expert = (one[..., :vocabulary].float() for one in (base, expert, anti_expert))
    return base + alpha * (expert - anti_expert)


@dataclass
class State:
    """What a model has read of a batch: the mask of all tokens, and its cache, else the tokens."""

    mask: Tensor
    cache: Any
    ids: Tensor | None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, as the caches of transformers do."""
        self.mask = self.mask.repeat_interleave(repeats, dim=0)
        if self.ids is None:
            self.cache.batch_repeat_interleave(repeats)
        else:
            self.ids = self.ids.repeat_interleave(repeats, dim=0)


class Reader:
    """Reads tokens with one model, from the beginning or after what it has read.

    With virtual tokens (prompt tuning, prefix tuning) peft would repeat them before every step. Such a model,
    and one that takes no cache, reads all tokens again at each step, one row after the other.
    """

    def __init__(self, model: Any) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._model = model
        self._accepted = frozenset(inspect.signature(inner.forward).parameters)
        has_virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
        self.keeps_cache = "past_key_values" in self._accepted and not has_virtual

    def read(self, ids: Tensor, mask: Tensor, state: State | None, last: int) -> tuple[Tensor, State]:
        """Read tokens.

        Args:
            ids: Token ids of shape (rows, positions), padded on the left.
            mask: 1 for a token and 0 for padding, of the same shape.
            state: What the model has read before; None for nothing. Its cache is changed.
            last: Number of final positions whose logits are wanted.

        Returns:
            Logits of shape (rows, last, rows of the vocabulary), and the state after these tokens.
        """
        ids = ids.masked_fill(mask == 0, 0)  # another model's padding token may be none of this model
        if state is not None:
            mask = torch.cat([state.mask, mask], dim=1)
            if state.ids is not None:
                ids = torch.cat([state.ids, ids], dim=1)
        if not self.keeps_cache:
            rows = [self._row(row[own], last) for row, own in zip(ids, mask.bool(), strict=True)]
            return torch.cat(rows), State(mask, None, ids)
        options: dict[str, Any] = {"attention_mask": mask, "use_cache": True}
        options["past_key_values"] = state.cache if state is not None else None
        if "position_ids" in self._accepted:
            options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._accepted:
            options["logits_to_keep"] = torch.arange(-last, 0, device=ids.device)
        output = self._model(input_ids=ids, **options)
        return output.logits[:, -last:], State(mask, output.past_key_values, None)

    def _row(self, ids: Tensor, last: int) -> Tensor:
        """Read one row without padding, because peft takes no positions beside virtual tokens.

        Returns logits of shape (1, last, rows of the vocabulary), zeros where the row is shorter.
        """
        logits = self._model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
        logits = logits[:, -min(last, len(ids)) :]
        before = logits.new_zeros(1, last - logits.shape[1], logits.shape[2])
        return torch.cat([before, logits], dim=1)


class _Follower:
    """A small model that follows the tokens that ``generate`` appends to its own prompt."""

    def __init__(self, model: Any, ids: Tensor, mask: Tensor) -> None:
        self._reader, self._ids, self._mask = Reader(model), ids, mask
        self._state: State | None = None

    def after(self, new: Tensor, *, continues: bool) -> Tensor:
        """Return the logits after the prompt and ``new``, of which all but the last are read already if it
        ``continues``; shape (rows, rows of the vocabulary)."""
        if continues and self._state is not None:
            new = new[:, -1:]
            logits, self._state = self._reader.read(new, torch.ones_like(new), self._state, 1)
            return logits[:, -1]
        beams = len(new) // len(self._ids)
        ids, mask = (one.repeat_interleave(beams, dim=0).to(new.device) for one in (self._ids, self._mask))
        ids, mask = torch.cat([ids, new], dim=1), torch.cat([mask, torch.ones_like(new)], dim=1)
        logits, self._state = self._reader.read(ids, mask, None, 1)
        return logits[:, -1]


class ProxyLogits(LogitsProcessor):
    """Steers a large model in ``generate`` by a small finetuned one and the same model before its finetuning.

    Use a new object for each call of ``generate``. When beams change places, all tokens are
    read again.

    Args:
        expert: The small finetuned model, in evaluation mode.
        anti_expert: The small model before its finetuning.
        alpha: How strongly they steer; 0 leaves the large model as it is, 1 is the paper's.
        vocabulary: Number of tokens that the three models share; later ones are never chosen. None takes the
            rows of the model that has the fewest.
        attention_mask: Mask of the prompts in the call of ``generate``; needed if they are padded (left).
        expert_inputs: ``input_ids`` and ``attention_mask`` of the same prompts for the expert, if its chat
            template is another; by default those of the large model.
        anti_expert_inputs: The same for the anti-expert.
    """

    def __init__(
        self,
        expert: Any,
        anti_expert: Any,
        alpha: float = 1.0,
        *,
        vocabulary: int | None = None,
        attention_mask: Tensor | None = None,
        expert_inputs: Any = None,
        anti_expert_inputs: Any = None,
    ) -> None:
        self._models, self._inputs = (expert, anti_expert), (expert_inputs, anti_expert_inputs)
        self._alpha, self._vocabulary, self._mask = alpha, vocabulary, attention_mask
        self._followers: list[_Follower] = []
        self._prompt_tokens = 0
        self._read: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the combined log-probabilities of the next token, -inf for those that are not shared.

        Beam search adds them up as they are; all else that follows would take logits as well.
        """
        with torch.inference_mode():
            if not self._followers:
                self._start(input_ids)
            new = input_ids[:, self._prompt_tokens :]
            continues = self._read is not None and torch.equal(self._read, input_ids[:, :-1])
            expert, anti = (one.after(new, continues=continues) for one in self._followers)
            self._read = input_ids.clone()
        rows = (scores, expert, anti)
        shared = min(one.shape[-1] for one in rows) if self._vocabulary is None else self._vocabulary
        steered = scores.new_full(scores.shape, float("-inf"), dtype=torch.float32)
        steered[..., :shared] = combined(scores, expert, anti, self._alpha, shared)
        return steered.log_softmax(dim=-1)

    def _start(self, prompts: Tensor) -> None:
        self._prompt_tokens = prompts.shape[1]
        mask = self._mask
        if mask is None:
            mask = torch.ones_like(prompts)
        elif len(prompts) > len(mask):  # generate repeats every prompt for its beams
            mask = mask.repeat_interleave(len(prompts) // len(mask), dim=0)
        for model, own in zip(self._models, self._inputs, strict=True):
            ids, own_mask = (prompts, mask) if own is None else (own["input_ids"], own["attention_mask"])
            self._followers.append(_Follower(model, ids, own_mask))
