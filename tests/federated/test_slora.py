"""SLoRA: few entries at places that follow from a seed, and an adapter that starts from their change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from tunecast.federated.lora import FACTOR_A, FACTOR_B
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import load_site
from tunecast.federated.slora import SLora, matrix

from .conftest import Workshop

STAGED = {"method": "slora", "density": 0.1, "sparse_rate": 1e-2}


def test_a_client_moves_the_chosen_entries_and_no_others(federation: Workshop, settings: Any) -> None:
    method = SLora(settings(**STAGED))
    client = federation.client(settings(**STAGED), "north")
    reply = client.train(1, method.send(method.start(federation.site), 1, "north"))
    assert reply.problem == ""
    with method.installed(federation.site, reply.arrays) as model:
        trained = dict(model.named_parameters())
        changed = [n for n, p in federation.site.base.named_parameters() if not torch.equal(p, trained[n])]
    assert len(changed) == len(reply.arrays)
    for name, values in reply.arrays.items():
        entries = matrix(federation.site, name).numel()
        assert len(values) == round(0.1 * entries) == len(set(method.places(name, entries)))
        assert np.count_nonzero(values) > 0.5 * len(values)


def test_bytes_are_those_of_the_values_then_of_the_adapter(federation: Workshop, settings: Any) -> None:
    chosen = settings(**STAGED | {"rounds": 3, "sparse_rounds": 1})
    method = SLora(chosen)
    history = federation.run(chosen)
    values = sum(array.size for array in method.start(federation.site).values())
    adapter = sum(array.size for array in history.state.values())
    assert history.records[1].down_bytes == history.records[1].up_bytes == 3 * 4 * values
    assert history.records[2].down_bytes == history.records[2].up_bytes == 3 * 4 * adapter
    assert history.records[3].validation_loss < history.records[0].validation_loss


def test_the_adapter_starts_as_the_best_approximation_of_the_change(
    federation: Workshop, settings: Any
) -> None:
    check_start(SLora(settings(**STAGED | {"lora_r": 4, "lora_alpha": 12})), federation.site)


def test_layers_that_keep_their_matrix_transposed_start_right_too(tmp_path: Path) -> None:
    model = tiny.build_gpt2(tmp_path / "gpt2")
    chosen = FederatedSettings(str(model), "", "", rounds=5, **STAGED | {"lora_r": 4, "lora_alpha": 12})  # type: ignore[arg-type]
    check_start(SLora(chosen), load_site(chosen))


def check_start(method: SLora, site: Any) -> None:
    draw = np.random.default_rng(0)
    state = {name: draw.normal(size=a.shape).astype(np.float32) for name, a in method.start(site).items()}
    adapter = method.join(site, state, [], method.settings.first_rounds).state
    with method.installed(site, adapter) as model:
        merged = {name: layer_change(model, name) for name in state}
    for name, values in state.items():
        entries = torch.zeros(matrix(site, name).numel())
        entries[torch.from_numpy(method.places(name, entries.numel()))] = torch.from_numpy(values)
        change = entries.view(matrix(site, name).shape)
        sizes = torch.linalg.svdvals(change)
        error = torch.linalg.norm(change - merged[name])
        assert float(error) == pytest.approx(float(torch.linalg.norm(sizes[4:])), rel=1e-3)
        assert adapter[name].shape[0] == adapter[name.replace(FACTOR_A, FACTOR_B)].shape[1] == 4


def layer_change(model: Any, name: str) -> torch.Tensor:
    """Return what the adapter adds to a matrix, as peft itself computes it."""
    change: torch.Tensor = (
        model.get_submodule(name.partition(FACTOR_A)[0]).get_delta_weight("default").detach()
    )
    return change


def test_the_stage_changes_even_if_nobody_replied(federation: Workshop, settings: Any) -> None:
    method = SLora(settings(**STAGED))
    state = method.join(federation.site, method.start(federation.site), [], 1).state
    assert any(FACTOR_B in name for name in state)
