"""QLoRA: LoRA over a base model whose linear layers are held in four bits (arXiv 2305.14314)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.lora import Lora
from tunecast.methods.targets import why_not_linear
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class QLora(Lora):
    """Quantises the frozen linear layers to NF4 with double quantisation while a trial lasts.

    The layers themselves wait in main memory and come back bit by bit. What is saved is a plain LoRA adapter:
    over the base in 16 bits it computes what it was trained for up to the error of quantisation.
    """

    name: ClassVar[str] = "qlora"
    weight: ClassVar[float] = 0.5

    def applies(self, model: ModelFacts) -> str | None:
        """Where there is a GPU for CUDA and bitsandbytes is installed."""
        import torch

        if not torch.cuda.is_available():
            return "there is no CUDA device here, and on a CPU a base in four bits saves no memory"
        if find_spec("bitsandbytes") is None:
            return "bitsandbytes, which quantises, is not installed"
        return why_not_linear(model, "QLoRA")

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """LoRA's, without the variants that read the weights."""
        reading = ("use_dora", "init_lora_weights")
        return [parameter for parameter in super().hyperparameters(model) if parameter.name not in reading]

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Quantise, then inject the adapter."""
        originals = _quantise(base)
        base.is_loaded_in_4bit = True  # by this peft knows that its layers are to be those for four bits
        try:
            model = super().attach(base, pipeline, seed)
        except BaseException:  # a base that is half quantised is of no use to the next trial
            _restore(base, originals)
            raise
        model._tunecast_originals = originals
        return model

    def detach(self, model: Any) -> Any:
        """Take the adapter out and put the layers back."""
        originals = model._tunecast_originals
        base = super().detach(model)
        _restore(base, originals)
        return base


def _quantise(base: Any) -> dict[str, Any]:
    """Put four-bit layers in the places of all linear ones but the head; return these, by their paths."""
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
