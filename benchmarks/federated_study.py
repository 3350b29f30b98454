"""Compares federated methods with centralised and local training on data that is split unevenly by label.

    python benchmarks/federated_study.py --model MODEL --task FOLDER --output study.jsonl

Every cell (method, concentration of the split, seed) is one line of the output. A cell that is there is not
run again. Clients run one after another in this process: Flower's transport changes no number. ``--table``
prints the output.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunecast.data import Example, read_training
from tunecast.federated.client import Client, InProcess
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import RoundsFolder, run_rounds
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import Site, load_site

SMALLEST_CLIENT = 4
HEADING = "| task | split | method | base | last round | best | MB moved | mean bias | s |"
VARIANTS: dict[str, dict[str, Any]] = {
    "fedavg-lora": {},
    "fedavg-lora freeze-a": {"aggregation": "freeze-a"},
    "fedavg-lora product": {"aggregation": "product"},
    "slora": {"method": "slora"},
    "fedkseed": {"method": "fedkseed", "seeds": 64, "steps": 20, "share": 0.25},
    "centralised": {},
    "local only": {},
}


def label(example: Example) -> str:
    return example.turns[-1].content


def dirichlet_split(labels: Sequence[str], clients: int, concentration: float, seed: int) -> list[list[int]]:
    """Split places by label, as FedKSeed's code does: full clients get no more, and small ones draw again."""
    draw = np.random.default_rng([seed, int(1000 * concentration)])
    while True:
        parts: list[list[int]] = [[] for _ in range(clients)]
        for name in sorted(set(labels)):
            places = draw.permutation([i for i, one in enumerate(labels) if one == name])
            shares = draw.dirichlet(np.full(clients, concentration))
            shares = shares * [len(part) < len(labels) / clients for part in parts]
            shares = shares / shares.sum() if shares.sum() > 0 else np.full(clients, 1 / clients)
            cuts = (np.cumsum(shares)[:-1] * len(places)).astype(int)
            for part, chosen in zip(parts, np.split(places, cuts), strict=True):
                part.extend(int(place) for place in chosen)
        if min(map(len, parts)) >= SMALLEST_CLIENT:
            return parts


class Fixed(Client):
    """A client whose examples are in memory already."""

    def __init__(self, settings: FederatedSettings, name: str, site: Site, examples: list[Any]) -> None:
        super().__init__(settings, name, "", "", site)
        self.__dict__["examples"] = examples


def run(
    settings: FederatedSettings, site: Site, parts: Sequence[list[Any]], validation: list[Any]
) -> list[Any]:
    exchange = InProcess([Fixed(settings, f"client-{i}", site, part) for i, part in enumerate(parts)])
    with tempfile.TemporaryDirectory() as folder:
        kept = RoundsFolder(Path(folder), settings)
        history = run_rounds(settings, federated_method(settings), site, validation, exchange, kept)
    return list(history.records)


def cell(
    options: argparse.Namespace, site: Site, variant: str, concentration: float, seed: int
) -> dict[str, Any]:
    """Run one method on one split, and return its losses and bytes by round."""
    began = time.monotonic()
    rows = list(read_training(options.task))
    chosen = np.random.default_rng(seed).permutation(len(rows))
    train = [rows[int(i)] for i in chosen[: options.examples]]
    validation = site.encode([rows[int(i)] for i in chosen[options.examples :][: options.validation]])
    split = dirichlet_split([label(row) for row in train], options.clients, concentration, seed)
    parts = [site.encode([train[i] for i in part]) for part in split]
    settings = replace(options.settings, seed=seed, **VARIANTS[variant])
    if variant == "local only":
        alone = [run(settings, site, [part], validation) for part in parts]
        losses = [
            float(np.mean([records[i].validation_loss for records in alone])) for i in range(len(alone[0]))
        ]
        traffic, biases = [0] * len(losses), [None] * len(losses)
    else:
        together = [[one for part in parts for one in part]] if variant == "centralised" else parts
        records = run(settings, site, together, validation)
        losses = [record.validation_loss for record in records]
        moved = [0 if variant == "centralised" else record.down_bytes + record.up_bytes for record in records]
        traffic, biases = np.cumsum(moved).tolist(), [record.bias for record in records]
    return {
        "model": site.facts.name,
        "task": Path(options.task).name,
        "variant": variant,
        "concentration": concentration,
        "seed": seed,
        "losses": losses,
        "bytes": traffic,
        "biases": biases,
        "sizes": [len(part) for part in parts],
        "labels": [dict(Counter(label(train[i]) for i in part)) for part in split],
        "seconds": time.monotonic() - began,
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the last and the best losses, with the bytes of all rounds, as Markdown."""
    rows = [
        HEADING,
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(lines, key=lambda line: (line["task"], line["concentration"], min(line["losses"]))):
        biases = [bias for bias in one["biases"] if bias is not None]
        bias = (
            f"{np.mean(biases):.3f}" if biases and one["variant"] not in ("centralised", "local only") else ""
        )
        rows.append(
            f"| {one['task']} | {one['concentration']:g} | {one['variant']} | {one['losses'][0]:.3f} "
            f"| {one['losses'][-1]:.3f} | {min(one['losses'][1:]):.3f} | {one['bytes'][-1] / 1e6:.3f} "
            f"| {bias} | {one['seconds']:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--concentrations", type=float, nargs="+", default=[0.1, 0.5, 10.0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="Print what the output holds, and run nothing.")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.output.open()] if options.output.exists() else []
    if options.table:
        print(table(done))
        return
    options.settings = FederatedSettings(options.model, "", "", rounds=options.rounds)
    site = load_site(options.settings)
    task = Path(options.task).name
    known = {(one["task"], one["variant"], one["concentration"], one["seed"]) for one in done}
    for seed in options.seeds:
        for variant in options.variants:
            for concentration in options.concentrations:
                if (task, variant, concentration, seed) in known:
                    continue
                line = cell(options, site, variant, concentration, seed)
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{variant} {concentration}: {line['losses']} in {line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
