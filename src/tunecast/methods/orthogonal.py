"""OFT and BOFT: a layer's input is rotated by trained orthogonal blocks (arXiv 2306.07280, 2311.06243)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.rates import around
from tunecast.methods.targets import divisors, target_choice, target_modules, why_not_linear
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

OFT_BLOCKS = (16, 32, 64, 128)
BOFT_BLOCKS = (4, 8, 16, 32)
WIDEST_FOR_BOFT = 4096
"""Input width up to which BOFT is offered: peft keeps a dense square of it per layer and multiplies two."""


class OFT(PeftMethod):
    """Rotates by blocks ``(I + Q)^-1 (I - Q)`` with Q skew-symmetric: the exact Cayley transform.

    peft's faster series of five terms leaves the orthogonal matrices as soon as Q is not small.
    """

    name: ClassVar[str] = "oft"
    weight: ClassVar[float] = 0.25
    fixed_rate: ClassVar[float | None] = 1e-4

    def applies(self, model: ModelFacts) -> str | None:
        """Where layers are plain linear ones that blocks divide."""
        return why_not_linear(model, "OFT") or _why_no_blocks(model, OFT_BLOCKS)

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate, the size of a block and the targets."""
        from ConfigSpace import Categorical, Float

        sizes = divisors(model, OFT_BLOCKS)
        return (
            Float("learning_rate", (3e-5, 3e-3), default=self.fixed_rate, log=True),
            Categorical("oft_block_size", sizes, default=32 if 32 in sizes else sizes[0], ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """The ``OFTConfig`` of a pipeline."""
        from peft import OFTConfig

        return OFTConfig(
            task_type=task_type(encoder_decoder),
            oft_block_size=int(pipeline.number("oft_block_size", 32)),
            use_cayley_neumann=False,
            target_modules=target_modules(pipeline),
        )


class BOFT(PeftMethod):
    """Rotates by orthogonal blocks and scales each output.

    A single factor of the butterfly: where its extension for CUDA cannot be compiled, peft takes one whatever
    is asked for, and a pipeline must mean the same on every machine.
    """

    name: ClassVar[str] = "boft"
    weight: ClassVar[float] = 0.1
    rate_multiple: ClassVar[float] = 2.0

    def applies(self, model: ModelFacts) -> str | None:
        """Where layers are plain linear ones that blocks divide, and not too wide."""
        widest = max(model.width, model.feed_forward_width)
        if widest > WIDEST_FOR_BOFT:
            return (
                f"its layers are up to {widest} wide, and peft's BOFT takes a dense square of that for each"
            )
        return why_not_linear(model, "BOFT") or _why_no_blocks(model, BOFT_BLOCKS)

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate, the size of a block and the targets."""
        from ConfigSpace import Categorical, Float

        sizes = divisors(model, BOFT_BLOCKS)
        return (
            Float("learning_rate", around(self.central_rate(model)), log=True),
            Categorical("boft_block_size", sizes, default=sizes[0], ordered=True),
            target_choice("attention"),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """The ``BOFTConfig`` of a pipeline."""
        from peft import BOFTConfig

        return BOFTConfig(
            task_type=task_type(encoder_decoder),
            boft_block_size=int(pipeline.number("boft_block_size", 4)),
            boft_n_butterfly_factor=1,
            target_modules=target_modules(pipeline),
        )

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Inject the adapter, without an attempt to compile the extension for each of its layers."""
        with _no_extension():
            return super().attach(base, pipeline, seed)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Blocks of ``in * block`` and a scale of ``out`` numbers per layer.

        peft cannot build BOFT without weights; OFT goes into the same layers.
        """
        block = int(pipeline.number("boft_block_size", 4))
        alike = Pipeline(OFT.name, {**pipeline.hyperparameters, "oft_block_size": block})
        adapted = OFT()._without_weights(model, alike)
        layers = [module for module in adapted.modules() if hasattr(module, "oft_R")]
        return sum(layer.in_features * block + layer.out_features for layer in layers)


@contextmanager
def _no_extension() -> Iterator[None]:
    """Tell peft that its extension for CUDA has been looked for and is not there.

    Else it starts a compiler, for a minute or in vain, and complains for every layer.
    """
    from peft.tuners.boft import layer

    before = layer._FBD_CUDA
    layer._FBD_CUDA = False
    try:
        yield
    finally:
        layer._FBD_CUDA = before


def _why_no_blocks(model: ModelFacts, sizes: tuple[int, ...]) -> str | None:
    if divisors(model, sizes):
        return None
    return f"no block of {sizes[0]} to {sizes[-1]} divides the widths of its layers"
