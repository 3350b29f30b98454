"""Runs a model without data on batches without data, while a ledger follows its tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tunecast.estimate.generation import Writer, tensors_of, tokens_without_data
from tunecast.estimate.workload import Workload
from tunecast.models.adapter import inner_model
from tunecast.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from tunecast.estimate.kernels import DeviceKernels
    from tunecast.estimate.ledger import Ledger, Moment, Work

_GRANULARITY = {"cpu": 1, "cuda": 512}
"""Bytes that an allocation is rounded up to: CUDA's caching allocator works in blocks of 512."""


@dataclass(frozen=True)
class Observed:
    """The moments of most bytes and the work, each by phase.

    Args:
        training: ``forward``; ``opening``, ``top`` and ``bottom`` of a backward pass; ``step``, what is left
            for the optimiser.
        evaluation: ``scoring``; with generation also ``prompt`` and ``token``, the last one. Empty where
            evaluation does not count.
        work: ``forward``; if they happen, ``backward``, ``scoring`` and ``token``, the last one generated.
    """

    training: Mapping[str, Moment]
    evaluation: Mapping[str, Moment]
    work: Mapping[str, Work]


def observe(model: Any, request: Workload, layers: Sequence[Any] = ()) -> Observed:
    """Run one training step, one evaluation batch and one generation of a model on the meta device.

    ``layers`` are the model's layers if they are alike, from the bottom up.
    """
    runner = _Runner(model, request, layers)
    uses_gradients = OPTIMIZERS[request.optimizer].uses_gradients
    training, work = runner.train() if uses_gradients else runner.compare()
    if not request.evaluates:
        return Observed(training, {}, work)
    scoring, scoring_work = runner.score()
    evaluation, work = {"scoring": scoring}, {**work, "scoring": scoring_work}
    if request.max_new_tokens:
        moments, token_work = runner.generate()
        evaluation |= moments
        work["token"] = token_work
    return Observed(training, evaluation, work)


class _Runner:
    def __init__(self, model: Any, request: Workload, layers: Sequence[Any]) -> None:
        self._model = model
        self._layers = layers
        self._request = request
        self._seq2seq = bool(model.config.is_encoder_decoder)
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])

    def train(self) -> tuple[dict[str, Moment], dict[str, Work]]:
        """One forward and backward pass; optimiser state is left to arithmetic."""
        request, model = self._request, self._model
        ledger = self._ledger()
        model.train()
        if request.gradient_checkpointing:
            recompute = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), self._kernels(ledger))}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=recompute)
        hooks = self._watch_gradients(ledger)
        with ledger, self._norms(ledger):
            with self._kernels(ledger):
                ledger.phase = "forward"
                loss = self._loss(self._batch(request.batch_size, request.max_length))
                self._charge_chunks(ledger, "forward", 1)
            # Outside the kernels' mode, which the call would suspend; recomputation enters it again.
            ledger.phase = "backward"
            loss.backward()
            head = self._model.get_output_embeddings()
            self._charge_chunks(ledger, "backward", 2 if head.weight.requires_grad else 1)
            moments = {**ledger.backward_peaks(), "step": ledger.now()}
            del loss
        moments["forward"] = ledger.peaks()["forward"]
        for hook in hooks:
            hook.remove()
        if request.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        return moments, {name: ledger.work[name] for name in ("forward", "backward")}

    def compare(self) -> tuple[dict[str, Moment], dict[str, Work]]:
        """Run one of the forward passes whose losses are compared, for optimisers without gradients."""
        import torch

        request = self._request
        ledger = self._ledger()
        self._model.eval()
        with torch.no_grad(), ledger:
            with self._kernels(ledger):
                ledger.phase = "forward"
                self._loss(self._batch(request.batch_size, request.max_length))
            moments = {"forward": ledger.peaks()["forward"], "step": ledger.now()}
        return moments, {"forward": ledger.work["forward"]}

    def _watch_gradients(self, ledger: Ledger) -> list[Any]:
        layer_of = {
            id(parameter): index
            for index, layer in enumerate(self._layers)
            for parameter in layer.parameters()
        }
        return [
            parameter.register_post_accumulate_grad_hook(
                partial(ledger.hold_gradient, layer=layer_of.get(id(parameter)))
            )
            for parameter in self._model.parameters()
            if parameter.requires_grad
        ]

    def score(self) -> tuple[Moment, Work]:
        """One evaluation batch without gradients."""
        import torch

        request = self._request
        ledger = self._ledger()
        self._model.eval()
        with torch.no_grad(), ledger, self._kernels(ledger):
            ledger.phase = "scoring"
            self._loss(self._batch(request.eval_batch_size or request.batch_size, request.max_length))
        return ledger.peaks()["scoring"], ledger.work["scoring"]

    def generate(self) -> tuple[dict[str, Moment], Work]:
        """Return the prompt's pass and the last generated token, when the cache is longest."""
        import torch

        request = self._request
        batch = request.eval_batch_size or request.batch_size
        prompt = request.prompt_length or max(1, request.max_length - request.max_new_tokens)
        ledger = self._ledger()
        self._model.eval()
        with torch.no_grad(), ledger, self._kernels(ledger):
            ledger.phase = "prompt"
            writer = Writer(self._model, batch, prompt + self._virtual_tokens(), self._mask)
            writer.read(0)
            ledger.phase = "filling"
            cache = writer.read(request.max_new_tokens - 1)
            self._hold_cache(ledger, cache)
            ledger.phase = "token"
            writer.next_token(cache)
            self._hold_cache(ledger, cache)  # every layer has put a longer copy in place of its own
        peaks = ledger.peaks()
        return {name: peaks[name] for name in ("prompt", "token")}, ledger.work["token"]

    def _hold_cache(self, ledger: Ledger, cache: Any) -> None:
        for tensor in tensors_of(cache):
            ledger.hold(tensor, "kv_cache")

    def _virtual_tokens(self) -> int:
        """Return the number of prompt tokens that the adapter puts before every example."""
        configs = getattr(self._model, "peft_config", {}).values()
        return sum(int(getattr(config, "num_virtual_tokens", 0) or 0) for config in configs)

    def _loss(self, batch: dict[str, Any]) -> Any:
        """Return the loss by the workload's convention; the output is dropped, as in the Trainer."""
        import torch

        if self._request.kernels == "liger" and not self._seq2seq:
            return self._chunked_loss(batch)
        if self._request.convention == "hf-trainer":
            return self._model(**batch).loss
        labels = batch["labels"]
        kept = min(self._request.label_tokens or labels.shape[1], labels.shape[1])
        if not self._seq2seq:
            batch = {name: value for name, value in batch.items() if name != "labels"}
            if "logits_to_keep" in inspect.signature(inner_model(self._model).forward).parameters:
                batch["logits_to_keep"] = kept
        logits = self._model(**batch).logits.flatten(0, 1)
        # Rows with labels are picked by an index, which copies them.
        chosen = logits[logits.new_zeros(labels.shape[0] * kept, dtype=torch.long)]
        targets = labels.new_zeros(chosen.shape[0])
        return torch.nn.functional.cross_entropy(chosen.float(), targets, reduction="none").sum()

    def _chunked_loss(self, batch: dict[str, Any]) -> Any:
        """Return the loss of the one chunk of rows whose logits exist at a time."""
        import torch

        from tunecast.estimate.head import only_rows

        labels, rows = batch["labels"], self._chunk_rows()
        with only_rows(self._model, rows):
            logits = self._model(**{**batch, "labels": None}).logits.flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits.float(), labels.flatten()[:rows])

    def _chunk_rows(self) -> int:
        """Return the rows that Liger's fused head and loss take at once: logits no larger than its input."""
        tokens = self._request.batch_size * self._request.max_length
        width = self._model.get_output_embeddings().weight.shape[1]
        chunk = -(-tokens // -(-self._vocabulary // width))
        return min(tokens, 1 << (chunk - 1).bit_length())

    def _charge_chunks(self, ledger: Ledger, phase: str, products: int) -> None:
        """Add the head's work on all chunks but the one that was run."""
        if self._request.kernels != "liger" or self._seq2seq:
            return
        weight = self._model.get_output_embeddings().weight
        rows = self._chunk_rows()
        chunks = -(-self._request.batch_size * self._request.max_length // rows) - 1
        ledger.phase = phase
        for _ in range(chunks * products):
            moved = weight.numel() * weight.element_size() + 2 * rows * self._vocabulary
            ledger.charge(2 * rows * weight.numel(), moved, weight.dtype)

    def _norms(self, ledger: Ledger) -> AbstractContextManager[None]:
        from tunecast.estimate.kernels import fused_norms

        return nullcontext() if self._request.kernels == "torch" else fused_norms(self._model, ledger)

    def _batch(self, size: int, length: int) -> dict[str, Any]:
        tokens = tokens_without_data(size, length)
        batch = {"input_ids": tokens, "attention_mask": self._mask(tokens), "labels": tokens}
        if self._seq2seq:
            batch["labels"] = tokens_without_data(size, self._request.label_tokens or length)
        return batch

    def _mask(self, tokens: Any) -> Any:
        if self._request.attention == "flash" and not self._seq2seq:
            return None
        return tokens.new_ones(tokens.shape)

    def _ledger(self) -> Ledger:
        from tunecast.estimate.ledger import Ledger

        ledger = Ledger(_GRANULARITY[self._request.device], self._vocabulary)
        adapted = self._request.adapter is not None
        for parameter in self._model.parameters():
            ledger.hold(parameter, "adapters" if adapted and parameter.requires_grad else "weights")
        for buffer in self._model.buffers():
            ledger.hold(buffer, "weights")
        return ledger

    def _kernels(self, ledger: Ledger) -> DeviceKernels:
        import torch

        from tunecast.estimate.kernels import DeviceKernels

        request = self._request
        autocast = request.autocast_dtype and getattr(torch, request.autocast_dtype)
        return DeviceKernels(ledger, autocast or None, request.device, fused_loss=request.kernels != "torch")
