"""QLoRA: LoRA over a base model whose linear layers are stored in four bits (arXiv 2305.14314)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.hardware.machine import has_accelerator
from tunecast.methods.lora import Lora
from tunecast.methods.targets import why_not_linear
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class QLora(Lora):
    """Quantises the frozen linear layers to NF4 with double quantisation for the duration of a trial.

    The original layers wait in main memory and come back bit-equal. The saved adapter is plain LoRA. Over the
    16-bit base it computes the trained function up to the quantisation error.
    """

    name: ClassVar[str] = "qlora"
    weight: ClassVar[float] = 0.5
    supports_head: ClassVar[bool] = False  # it would quantise the new head

    def applies(self, model: ModelFacts) -> str | None:
        """Require a CUDA device and bitsandbytes."""
        if not has_accelerator():
            return "there is no CUDA device, and on a CPU a four-bit base saves no memory"
        if find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed, which quantises"
        return self.applies_elsewhere(model)

    def applies_elsewhere(self, model: ModelFacts) -> str | None:
        """Require plain linear layers."""
        return why_not_linear(model, "QLoRA")

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return LoRA's, without the variants that read the base weights."""
        reading = ("use_dora", "init_lora_weights")
        return [parameter for parameter in super().choices(model) if parameter.name not in reading]

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Quantise, then inject the adapter."""
        originals = _quantise(base)
        base.is_loaded_in_4bit = True  # makes peft use its four-bit layers
        try:
            model = super().attach(base, pipeline, seed)
        except BaseException:  # the next trial cannot use a half-quantised base
            _restore(base, originals)
            raise
        model._tunecast_originals = originals
        return model

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """LoRA's, over four bits."""
        return replace(super().footprint(pipeline, model), four_bit=True)

    def release_base(self, model: Any) -> None:
        """Let the original layers go."""
        del model._tunecast_originals

    def detach(self, model: Any) -> Any:
        """Remove the adapter and put the original layers back."""
        originals = model._tunecast_originals
        base = super().detach(model)
        _restore(base, originals)
        return base


def _quantise(base: Any) -> dict[str, Any]:
    """Replace all linear layers except the head by four-bit ones; return the originals by path."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    head, device = base.get_output_embeddings(), base.device
    found = {
        path: module
        for path, module in base.named_modules()
        if type(module) is torch.nn.Linear and module is not head
    }
    for path, module in found.items():
        layer = Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=module.weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        module.to("cpu")
        layer.weight = Params4bit(
            module.weight.data.clone(), requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
        layer.bias = module.bias
        base.set_submodule(path, layer.to(device).requires_grad_(False).train(module.training))
    return found


def _restore(base: Any, originals: dict[str, Any]) -> None:
    device = base.device
    for path, module in originals.items():
        base.set_submodule(path, module.to(device))
    vars(base).pop("is_loaded_in_4bit", None)
