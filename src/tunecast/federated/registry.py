"""Finds a federated method by its name."""

from __future__ import annotations

from tunecast.federated.fedkseed import FedKSeed
from tunecast.federated.lora import FedAvgLora
from tunecast.federated.method import FederatedMethod
from tunecast.federated.settings import FEDAVG_LORA, FEDKSEED, SLORA, FederatedSettings
from tunecast.federated.slora import SLora

METHOD_CLASSES: dict[str, type[FederatedMethod]] = {
    FEDKSEED: FedKSeed,
    SLORA: SLora,
    FEDAVG_LORA: FedAvgLora,
}


def federated_method(settings: FederatedSettings) -> FederatedMethod:
    """Return the method of a federation."""
    return METHOD_CLASSES[settings.method](settings)
