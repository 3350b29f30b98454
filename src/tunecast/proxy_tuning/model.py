"""A large model steered by a small one, as one model that is scored and generates like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from tunecast.proxy_tuning.logits import ProxyLogits, Reader, State, combined
from tunecast.proxy_tuning.prompts import OwnPrompts


@dataclass
class States:
    """What the three models have read of a batch: base, expert, anti-expert."""

    of_models: list[State]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, as the caches of transformers do."""
        for state in self.of_models:
            state.batch_repeat_interleave(repeats)


class SteeredModel(torch.nn.Module):
    """Combines the logits of base, expert and anti-expert; inputs are the expert's, padded on the left.

    Args:
        base: The large model.
        expert: The small finetuned model.
        anti_expert: The small model before its finetuning.
        alpha: How strongly the small models steer; it may be changed later.
        vocabulary: Number of tokens that the models share; see
            :func:`~tunecast.proxy_tuning.vocabulary.shared_tokens`.
        stop: End-of-turn token of the expert.
        prompts: For base, expert and anti-expert, how to write prompts in the model's own template; None if
            it is the expert's.
    """

    def __init__(
        self,
        base: Any,
        expert: Any,
        anti_expert: Any,
        alpha: float,
        vocabulary: int,
        stop: int,
        prompts: tuple[OwnPrompts | None, ...] = (None, None, None),
    ) -> None:
        super().__init__()
        self.base, self.expert, self.anti_expert = base, expert, anti_expert
        self.alpha, self.vocabulary = alpha, vocabulary
        self.config, self.generation_config = base.config, base.generation_config
        self._stop, self._prompts = stop, prompts
        self._readers = [Reader(model) for model in self.members]
        self.eval()

    @property
    def members(self) -> tuple[Any, Any, Any]:
        """Base, expert and anti-expert."""
        return self.base, self.expert, self.anti_expert

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: States | None = None,
        use_cache: bool = False,
        logits_to_keep: Tensor | int = 0,
    ) -> CausalLMOutputWithPast:
        """Compute combined logits of the last positions, as causal models of transformers do.

        Args:
            input_ids: Token ids of shape (rows, positions).
            attention_mask: 1 for a token and 0 for padding, for all tokens or these alone.
            past_key_values: What was read before, of an earlier result.
            use_cache: Whether the result has what was read.
            logits_to_keep: The number of final positions wanted, or their indices from the end; 0 for all.
        """
        positions = input_ids.shape[1]
        last = len(logits_to_keep) if isinstance(logits_to_keep, Tensor) else logits_to_keep or positions
        mask = attention_mask[:, -positions:]
        before: list[Any] = [None] * 3 if past_key_values is None else past_key_values.of_models
        logits, states = [], []
        for reader, prompts, state in zip(self._readers, self._prompts, before, strict=True):
            own = (input_ids, mask)
            if prompts is not None and state is None:
                own = prompts.rewritten(input_ids, mask, last)
            found, after = reader.read(*own, state, last)
            logits.append(found)
            states.append(after)
        base, expert, anti = logits
        summed = combined(base, expert, anti, self.alpha, self.vocabulary)
        kept: Any = States(states) if use_cache else None
        return CausalLMOutputWithPast(logits=summed, past_key_values=kept)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Generate by the base's ``generate``, with its options; the result begins with the input."""
        base, expert, anti = (
            (input_ids, attention_mask)
            if prompts is None
            else prompts.rewritten(input_ids, attention_mask, 1)
            for prompts in self._prompts
        )
        steer = ProxyLogits(
            self.expert,
            self.anti_expert,
            self.alpha,
            vocabulary=self.vocabulary,
            expert_inputs={"input_ids": expert[0], "attention_mask": expert[1]},
            anti_expert_inputs={"input_ids": anti[0], "attention_mask": anti[1]},
        )
        ids, mask = base
        output = self.base.generate(
            input_ids=ids.masked_fill(mask == 0, 0),
            attention_mask=mask,
            logits_processor=[steer],
            # The expert's padding token may be none of the base's.
            **{**options, "pad_token_id": self._stop},
        )
        return torch.cat([input_ids, output[:, ids.shape[1] :]], dim=1)
