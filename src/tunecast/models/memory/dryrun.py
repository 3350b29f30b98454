"""Dry runs of one training step, one evaluation batch and one generation, on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError
from tunecast.models.memory.generation import Writer, tensors_of, tokens_without_data
from tunecast.models.memory.request import MemoryRequest
from tunecast.models.memory.skeleton import build_skeleton, quantised_bytes, without_data

if TYPE_CHECKING:
    from tunecast.models.memory.kernels import DeviceKernels
    from tunecast.models.memory.ledger import Ledger, Moment, Work

__all__ = ["DryRun", "dry_run"]

_GRANULARITY = {"cpu": 1, "cuda": 512}
"""Bytes that an allocation is rounded up to: CUDA's caching allocator works in blocks of 512."""


@dataclass(frozen=True)
class DryRun:
    """What a dry run saw; optimiser state and sharding are arithmetic on top.

    Args:
        training: The highest moments of the forward and backward pass, and what is left for the optimiser.
        evaluation: The highest moment of scoring a batch, and of generating where that was asked for.
        forward: Work of one forward pass of training.
        backward: Work of its backward pass.
        generation: Work of one generated token for the whole evaluation batch; None without generation.
        trained_shapes: Shape and bytes per element of every trained tensor.
        largest_layer_bytes: Weights of the largest repeated block, which sharding gathers at once.
        saved_by_quantisation: Bytes by which ``weights`` are smaller once quantised.
        unpacked_bytes: The largest weight that is unpacked while it is used.
    """

    training: Mapping[str, Moment]
    evaluation: Mapping[str, Moment]
    forward: Work
    backward: Work
    generation: Work | None
    trained_shapes: tuple[tuple[tuple[int, ...], int], ...]
    largest_layer_bytes: int
    saved_by_quantisation: int
    unpacked_bytes: int

    @property
    def trainable_parameters(self) -> int:
        """Number of trained parameters, tied ones once."""
        total = 0
        for shape, _ in self.trained_shapes:
            count = 1
            for width in shape:
                count *= width
            total += count
        return total


def dry_run(config: Any, request: MemoryRequest) -> DryRun:
    """Run a step, an evaluation batch and a generation of ``config`` on the meta device.

    Args:
        config: A transformers ``PretrainedConfig``.
        request: What is asked for.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot run without weights.
    """
    with without_data():
        model = build_skeleton(config, request)
        runner = _Runner(model, request)
        try:
            training = runner.train()
            evaluation = {"scoring": runner.score()}
            generated = runner.generate() if request.max_new_tokens else None
        except (NotImplementedError, RuntimeError) as error:
            raise ConfigurationError(
                f"this model or adapter cannot run without weights: {str(error).splitlines()[0]}",
                "its memory has to be measured",
            ) from error
        if generated is not None:
            evaluation["generation"] = generated[0]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        saved, unpacked = quantised_bytes(model, request.precision)
        return DryRun(
            training=training.moments,
            evaluation=evaluation,
            forward=training.forward,
            backward=training.backward,
            generation=generated[1] if generated else None,
            trained_shapes=tuple((tuple(p.shape), p.element_size()) for p in trained),
            largest_layer_bytes=_largest_layer_bytes(model),
            saved_by_quantisation=saved,
            unpacked_bytes=unpacked,
        )


@dataclass(frozen=True)
class _Training:
    moments: Mapping[str, Moment]
    forward: Work
    backward: Work


class _Runner:
    """Feeds a model without data with batches without data."""

    def __init__(self, model: Any, request: MemoryRequest) -> None:
        self._model = model
        self._request = request
        self._seq2seq = bool(model.config.is_encoder_decoder)
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])

    def train(self) -> _Training:
        """One forward and backward pass; optimiser state is left to arithmetic."""
        from tunecast.models.memory.ledger import Work

        request, model = self._request, self._model
        ledger = self._ledger()
        model.train()
        if request.gradient_checkpointing:
            recompute = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), self._kernels(ledger))}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=recompute)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(ledger.hold_gradient)
        with ledger:
            with self._kernels(ledger):
                ledger.phase = "forward"
                output, loss = self._loss(self._batch(request.batch_size, request.max_length))
            # Outside the kernels' mode, which the call would suspend; recomputation enters it again.
            ledger.phase = "backward"
            loss.backward()
            moments = {**ledger.peaks(), "step": ledger.now()}
            del output, loss
        if request.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        moments.pop("setup")
        return _Training(moments, ledger.work.get("forward", Work()), ledger.work.get("backward", Work()))

    def score(self) -> Moment:
        """One evaluation batch without gradients; the moment of most bytes."""
        import torch

        request = self._request
        ledger = self._ledger()
        self._model.eval()
        with torch.no_grad(), ledger, self._kernels(ledger):
            ledger.phase = "scoring"
            self._loss(self._batch(request.eval_batch_size or request.batch_size, request.max_length))
        return ledger.peaks()["scoring"]

    def generate(self) -> tuple[Moment, Work]:
        """The last generated token, when the cache is longest, or the prompt's pass if that needs more."""
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
            for tensor in tensors_of(cache):
                ledger.hold(tensor, "kv_cache")
            ledger.phase = "token"
            writer.next_token(cache)
        peaks = ledger.peaks()
        highest = max((peaks["prompt"], peaks["token"]), key=lambda moment: moment.total_bytes)
        return highest, ledger.work["token"]

    def _virtual_tokens(self) -> int:
        """Prompt tokens that the adapter puts before every example."""
        configs = getattr(self._model, "peft_config", {}).values()
        return sum(int(getattr(config, "num_virtual_tokens", 0) or 0) for config in configs)

    def _loss(self, batch: dict[str, Any]) -> tuple[Any, Any]:
        """Output and loss of a batch by the request's convention."""
        import torch

        labels = batch["labels"]
        if self._request.convention == "hf-trainer":
            output = self._model(**batch)
            return output, output.loss
        from tunecast.models.memory.head import only_rows

        per_example = min(self._request.label_tokens or labels.shape[1], labels.shape[1])
        rows = labels.shape[0] * per_example
        if self._seq2seq:
            # Labels make the decoder's input; its loss is not used.
            batch = {**batch, "decoder_input_ids": batch.pop("labels")}
        else:
            batch.pop("labels")
        with only_rows(self._model, rows):
            output = self._model(**batch)
        logits = output.logits.reshape(-1, output.logits.shape[-1])
        targets = labels.new_zeros(logits.shape[0])
        return output, torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    def _batch(self, size: int, length: int) -> dict[str, Any]:
        tokens = tokens_without_data(size, length)
        batch = {"input_ids": tokens, "attention_mask": self._mask(tokens)}
        if self._seq2seq:
            return {**batch, "labels": tokens_without_data(size, self._request.label_tokens or length)}
        return {**batch, "labels": tokens}

    def _mask(self, tokens: Any) -> Any:
        return (
            None
            if self._request.attention == "flash" and not self._seq2seq
            else tokens.new_ones(tokens.shape)
        )

    def _ledger(self) -> Ledger:
        from tunecast.models.memory.ledger import Ledger

        ledger = Ledger(_GRANULARITY[self._request.device], self._vocabulary)
        adapted = self._request.adapter is not None
        for parameter in self._model.parameters():
            ledger.hold(parameter, "adapters" if adapted and parameter.requires_grad else "weights")
        for buffer in self._model.buffers():
            ledger.hold(buffer, "weights")
        return ledger

    def _kernels(self, ledger: Ledger) -> DeviceKernels:
        from tunecast.models.memory.kernels import DeviceKernels

        return DeviceKernels(ledger, self._autocast())

    def _autocast(self) -> Any:
        import torch

        if self._request.convention == "hf-trainer" or self._request.compute_dtype == "float32":
            return None
        return getattr(torch, self._request.compute_dtype)


def _largest_layer_bytes(model: Any) -> int:
    import torch

    blocks = [block for stack in model.modules() if isinstance(stack, torch.nn.ModuleList) for block in stack]
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks]
    table = model.get_input_embeddings().weight
    return max([*sizes, table.numel() * table.element_size()])
