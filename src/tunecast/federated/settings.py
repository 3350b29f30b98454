"""The settings of a federation, which its server and all clients share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.ranges import check_range

FEDKSEED, SLORA, FEDAVG_LORA = "fedkseed", "slora", "fedavg-lora"
METHODS = (FEDKSEED, SLORA, FEDAVG_LORA)
AGGREGATIONS = ("average", "freeze-a", "product")
EXAMPLES, EQUAL = "examples", "equal"
HELD_OUT = ("validation", "test")
"""Splits of the server's data that may be scored, the preferred one first."""
NUMBERS = (
    "rounds",
    "clients",
    "share",
    "round_seconds",
    "wait_seconds",
    "learning_rate",
    "batch_size",
    "local_epochs",
    "max_length",
    "lora_r",
    "lora_alpha",
    "density",
    "sparse_rate",
    "seeds",
    "steps",
    "perturbation",
    "seed",
)
"""Fields whose range :func:`tunecast.ranges.check_range` knows."""
OF_LORA = ("lora_r", "lora_alpha", "aggregation", "local_epochs")
OF_METHODS = {
    FEDKSEED: ("seeds", "steps", "perturbation", "pro"),
    SLORA: (*OF_LORA, "density", "sparse_rounds", "sparse_rate"),
    FEDAVG_LORA: OF_LORA,
}
"""Fields that have an effect with some methods only."""


@dataclass(frozen=True)
class FederatedSettings:
    """How a federation trains. Every field is the same on all sides.

    Args:
        model: The base model; clients on other machines may name their own copy of it.
        validation: Held-out examples of the server, as for ``--data``; of several splits, see ``HELD_OUT``.
        output_dir: The server's folder.
        method: ``fedkseed``, ``slora`` or ``fedavg-lora``.
        rounds: Rounds of training, all stages together.
        clients: Clients to wait for before the first round.
        share: Share of the clients that train in a round, drawn by ``seed``.
        weighting: Whether clients count by their number of examples, or equally.
        round_seconds: Longest wait for replies; a slower client is left out of the round.
        wait_seconds: Longest wait for the clients before the first round.
        learning_rate: The clients' rate; None for the method's usual one on this model.
        batch_size: Examples per step of a client.
        local_epochs: Passes over its data that a client makes in a round, with LoRA.
        max_length: Longest example in tokens; the model's context if that is shorter.
        aggregation: ``average`` LoRA's factors, ``freeze-a`` and average B, or average the ``product``.
        density: Share of the entries of each matrix that SLoRA's first stage trains.
        sparse_rounds: Rounds of that stage; None for a fifth of all.
        sparse_rate: The clients' rate in that stage; None for full finetuning's usual one.
        seeds: Number of FedKSeed's directions (K).
        steps: Steps of a FedKSeed client in a round (tau).
        perturbation: Distance at which FedKSeed measures slopes (epsilon).
        pro: Whether directions with steeper slopes are drawn more often (FedKSeed-Pro).
    """

    model: str
    validation: str
    output_dir: str
    method: str = FEDAVG_LORA
    rounds: int = 10
    clients: int = 1
    share: float = 1.0
    weighting: str = EXAMPLES
    round_seconds: float = 3600.0
    wait_seconds: float = 120.0
    learning_rate: float | None = None
    batch_size: int = 8
    local_epochs: float = 1.0
    max_length: int = 512
    lora_r: int = 8
    lora_alpha: int = 16
    aggregation: str = "average"
    density: float = 0.01
    sparse_rounds: int | None = None
    sparse_rate: float | None = None
    seeds: int = 4096
    steps: int = 200
    perturbation: float = 5e-4
    pro: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values that no federation can train with."""
        _one_of("--method", self.method, METHODS)
        _one_of("--aggregation", self.aggregation, AGGREGATIONS)
        _one_of("--weighting", self.weighting, (EXAMPLES, EQUAL))
        for name in NUMBERS:
            check_range(name, getattr(self, name))
        self._refuse_idle()
        if self.method == SLORA and not 1 <= self.first_rounds < self.rounds:
            raise ConfigurationError(
                f"--method slora needs rounds for both of its stages; --sparse-rounds {self.first_rounds} of "
                f"--rounds {self.rounds} leaves none for one of them.",
                "Give at least 2 rounds, and fewer sparse ones.",
            )

    def _refuse_idle(self) -> None:
        """Refuse settings that only other methods read."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in sorted({name for names in OF_METHODS.values() for name in names}):
            if name not in OF_METHODS[self.method] and getattr(self, name) != defaults[name]:
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} has no effect with --method {self.method}.", "Leave it out."
                )

    @property
    def first_rounds(self) -> int:
        """Rounds of SLoRA's first stage."""
        return max(1, self.rounds // 5) if self.sparse_rounds is None else self.sparse_rounds

    def to_json(self) -> str:
        """Return all fields as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> FederatedSettings:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        known = {field.name for field in fields(FederatedSettings)}
        return FederatedSettings(**{name: value for name, value in values.items() if name in known})


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = f"{did_you_mean(value, known)}Known: {', '.join(known)}."
        raise ConfigurationError(f"{option} {value}: there is no such value.", hint)
