"""What the server and every client have alike: the base model, its tokenizer, and how to compute."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast import models
from tunecast.data import encode
from tunecast.errors import ModelError
from tunecast.federated.settings import FederatedSettings
from tunecast.hardware.machine import find_device
from tunecast.records import ModelFacts, device_kind, stable_hash
from tunecast.training.compute import Compute
from tunecast.training.evaluate import Evaluator
from tunecast.training.losses import COMPLETION, Loss, get_loss

if TYPE_CHECKING:
    from tunecast.data import EncodedExample, Example
    from tunecast.models.load import ResolvedModel

Arrays = dict[str, np.ndarray]
"""What a message carries, and what a server keeps between rounds: named arrays."""


@dataclass(frozen=True)
class Site:
    """A loaded base model in float32. It is left unchanged between calls; see :class:`FederatedMethod`."""

    base: Any
    tokenizer: Any
    facts: ModelFacts
    resolved: ResolvedModel
    compute: Compute
    max_length: int

    @property
    def loss(self) -> Loss:
        """The loss that clients minimise and the server measures: that of the completion."""
        return get_loss(COMPLETION)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the base model's weights; methods that send changes need equal ones on all sides."""
        digest = hashlib.sha256()
        for name, tensor in self.base.named_parameters():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def vocabulary_hash(self) -> str:
        """Hash of the vocabulary and the chat template."""
        words = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return stable_hash([words, str(self.tokenizer.chat_template)])

    @cached_property
    def draws_hash(self) -> str:
        """Hash of numbers drawn from one seed, which other versions of NumPy and torch may draw differently.

        Masks, directions and the starts of adapters are drawn on every side, and never sent.
        """
        import torch

        draw = np.random.default_rng(0)
        places = [draw.integers(1 << 32, size=8), draw.choice(10_000, 8, False, shuffle=False)]
        normal = torch.randn(64, generator=torch.Generator().manual_seed(0))
        # Processors may differ in the last bits, which does not matter.
        rounded = (1000 * normal).round().int().tolist()
        return stable_hash([[int(place) for part in places for place in part], rounded])

    @property
    def device_kind(self) -> str:
        """``cpu`` or ``cuda``: their random generators draw different directions from one seed."""
        return device_kind(self.compute.device)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode examples; those without a token to learn are left out."""
        return encode(
            examples, self.tokenizer, max_length=self.max_length, architecture=self.facts.architecture
        )

    def score(self, model: Any, examples: Sequence[EncodedExample]) -> float:
        """Return the loss in nats per label token."""
        return Evaluator(self.compute, self.loss).score(model, examples).loss


def load_site(settings: FederatedSettings, model: str = "") -> Site:
    """Load the base model of a federation.

    Args:
        model: Where this side keeps it, if elsewhere than ``settings.model``.

    Raises:
        ModelError: It cannot be loaded.
        ConfigurationError: The device does not exist.
    """
    import torch

    device = settings.device
    if device != "cpu":
        device = str(find_device(device))
    resolved = models.resolve(model or settings.model)
    facts = models.describe(resolved)
    tokenizer = models.load_tokenizer(resolved)
    base = models.load_model(resolved, dtype=torch.float32, device=device)
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{resolved.name} has no token to pad with.", "Give its tokenizer a pad_token.")
    compute = Compute(device, "float32", facts.architecture, tokenizer.pad_token_id)
    longest = min(settings.max_length, facts.context or settings.max_length)
    return Site(base, tokenizer, facts, resolved, compute, longest)
