"""OFT and BOFT: rotate a layer's input by trained orthogonal blocks (arXiv 2306.07280, 2311.06243)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.targets import divisors, target_choice, target_modules, why_not_linear
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

OFT_BLOCKS = (16, 32, 64, 128)
BOFT_BLOCKS = (4, 8, 16, 32)
MAX_BOFT_WIDTH = 4096
"""Largest input width for BOFT: peft keeps a dense square matrix of this width for each layer."""


class OFT(PeftMethod):
    """Rotates by blocks ``(I + Q)^-1 (I - Q)`` with Q skew-symmetric, the exact Cayley transform.

    peft's faster five-term series is no longer orthogonal once Q is not small.
    """

    name: ClassVar[str] = "oft"
    weight: ClassVar[float] = 0.25
    fixed_rate: ClassVar[float | None] = 1e-4
    rate_range: ClassVar[tuple[float, float] | None] = (3e-5, 3e-3)

    def applies(self, model: ModelFacts) -> str | None:
        """Accept models with plain linear layers that the blocks divide."""
        return why_not_linear(model, "OFT") or _why_no_blocks(model, OFT_BLOCKS)

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the block size and the targets."""
        from ConfigSpace import Categorical

        sizes = divisors(model, OFT_BLOCKS)
        return (
            Categorical("oft_block_size", sizes, default=32 if 32 in sizes else sizes[0], ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``OFTConfig``."""
        from peft import OFTConfig

        return OFTConfig(
            task_type=task_type(encoder_decoder),
            oft_block_size=int(pipeline.number("oft_block_size", 32)),
            use_cayley_neumann=False,
            target_modules=target_modules(pipeline),
        )


class BOFT(PeftMethod):
    """Rotates by orthogonal blocks and scales each output.

    It uses a single butterfly factor. Without its compiled CUDA extension, peft always uses one, and a
    pipeline must mean the same on every machine.
    """

    name: ClassVar[str] = "boft"
    weight: ClassVar[float] = 0.1
    rate_multiple: ClassVar[float] = 2.0

    def applies(self, model: ModelFacts) -> str | None:
        """Accept models with plain linear layers that the blocks divide and that are not too wide."""
        widest = max(model.width, model.feed_forward_width)
        if widest > MAX_BOFT_WIDTH:
            return f"its layers are up to {widest} wide, and peft's BOFT needs a dense square matrix for each"
        return why_not_linear(model, "BOFT") or _why_no_blocks(model, BOFT_BLOCKS)

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the block size and the targets."""
        from ConfigSpace import Categorical

        sizes = divisors(model, BOFT_BLOCKS)
        return (
            Categorical("boft_block_size", sizes, default=sizes[0], ordered=True),
            target_choice("attention"),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``BOFTConfig``."""
        from peft import BOFTConfig

        return BOFTConfig(
            task_type=task_type(encoder_decoder),
            boft_block_size=int(pipeline.number("boft_block_size", 4)),
            boft_n_butterfly_factor=1,
            target_modules=target_modules(pipeline),
        )

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Inject the adapter without trying to compile the extension for each layer."""
        with _no_extension():
            return super().attach(base, pipeline, seed)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Count ``in * block`` for the blocks and ``out`` for the scales of each layer.

        peft cannot build BOFT without weights, so the layers are found with OFT.
        """
        block = int(pipeline.number("boft_block_size", 4))
        alike = Pipeline(OFT.name, {**pipeline.hyperparameters, "oft_block_size": block})
        adapted = OFT().without_weights(model, alike)
        layers = [module for module in adapted.modules() if hasattr(module, "oft_R")]
        return sum(layer.in_features * block + layer.out_features for layer in layers)


@contextmanager
def _no_extension() -> Iterator[None]:
    """Tell peft that its CUDA extension is not available.

    Otherwise it runs a compiler, for a minute or in vain, and warns for every layer.
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
