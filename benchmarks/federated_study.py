"""Compares federated methods with centralised and local training on data that is split unevenly by label.

    python benchmarks/federated_study.py --model MODEL --task FOLDER --output study.jsonl

Every cell (method, clients, concentration of the split, seed) is one line of the output. A cell that is there
is not run again. Clients run one after another in this process: Flower's transport changes no number.
``--table`` prints the output, and ``--page PAGE.md`` replaces the page's figures with it. ``--export FILE``
writes what ``tunecast recommend --federated`` learns from as CSV: by round, the share of the centralised gain
that a method has reached.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunecast.data import Example, read_split
from tunecast.federated.client import Client, InProcess
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import RoundsFolder, run_rounds
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import Site, load_site
from tunecast.recommender.federated_study import VARIANTS as FEDERATED
from tunecast_benchmarks.page_figures import replace_figures

SMALLEST_CLIENT = 4
MAX_DRAWS = 5000
RESULTS = Path(__file__).parent / "results" / "federated_study.jsonl"
CENTRALISED, LOCAL = "centralised", "local only"
VARIANTS: dict[str, Mapping[str, Any]] = {**FEDERATED, CENTRALISED: {}, LOCAL: {}}
COLUMNS = (
    "model",
    "parameters",
    "task",
    "variant",
    "clients",
    "share",
    "concentration",
    "seed",
    "round",
    "kept",
)
Line = dict[str, Any]


class TooFewExamplesError(ValueError):
    """No split gives every client enough examples."""


def label(example: Example) -> str:
    return example.turns[-1].content


def dirichlet_split(labels: Sequence[str], clients: int, concentration: float, seed: int) -> list[list[int]]:
    """Split places by label, as FedKSeed's code does: full clients get no more, and small ones draw again.

    Raises:
        TooFewExamplesError: Some client was too small in every draw.
    """
    draw = np.random.default_rng([seed, int(1000 * concentration)])
    for _ in range(MAX_DRAWS):
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
    raise TooFewExamplesError(
        f"{len(labels)} examples are too few for {clients} clients of {SMALLEST_CLIENT}."
    )


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


def cell(options: argparse.Namespace, site: Site, variant: str, concentration: float, seed: int) -> Line:
    """Run one method on one split, and return its losses and bytes by round."""
    began = time.monotonic()
    rows = list(read_split(options.task, "train"))
    chosen = np.random.default_rng(seed).permutation(len(rows))
    train = [rows[int(i)] for i in chosen[: options.examples]]
    validation = site.encode([rows[int(i)] for i in chosen[options.examples :][: options.validation]])
    split = dirichlet_split([label(row) for row in train], options.clients, concentration, seed)
    parts = [site.encode([train[i] for i in part]) for part in split]
    settings = replace(options.settings, seed=seed, **VARIANTS[variant])
    if variant == LOCAL:
        alone = [run(replace(settings, share=1.0), site, [part], validation) for part in parts]
        losses = [
            float(np.mean([records[i].validation_loss for records in alone])) for i in range(len(alone[0]))
        ]
        traffic, biases = [0] * len(losses), [None] * len(losses)
    elif variant == CENTRALISED:
        together = [one for part in parts for one in part]
        records = run(replace(settings, share=1.0), site, [together], validation)
        losses = [record.validation_loss for record in records]
        traffic, biases = [0] * len(losses), [None] * len(losses)
    else:
        records = run(settings, site, parts, validation)
        losses = [record.validation_loss for record in records]
        traffic = np.cumsum([record.down_bytes + record.up_bytes for record in records]).tolist()
        biases = [record.bias for record in records]
    return {
        "model": site.facts.name,
        "parameters": site.facts.parameters,
        "task": Path(options.task).name,
        "variant": variant,
        "clients": options.clients,
        "share": options.share,
        "examples": options.examples,
        "validation": options.validation,
        "rounds": options.rounds,
        "concentration": concentration,
        "seed": seed,
        "losses": losses,
        "bytes": traffic,
        "biases": biases,
        "sizes": [len(part) for part in parts],
        "labels": [dict(Counter(label(train[i]) for i in part)) for part in split],
        "seconds": time.monotonic() - began,
    }


def read(file: Path) -> list[Line]:
    """Read the cells of earlier calls."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def place(line: Line) -> tuple[object, ...]:
    """Return what makes a cell a cell; how examples are spread makes no difference to a centralised one."""
    spread = () if line["variant"] == CENTRALISED else (line["clients"], line["share"], line["concentration"])
    return *_data(line), line["variant"], *spread


def kept_gains(lines: Sequence[Line]) -> Iterator[Line]:
    """Yield the share of the centralised gain by method, split and round.

    The best round so far counts, and the base model before there is a better one. Rounds that a method does
    not deliver are left out.
    """
    central = {
        _data(one): np.minimum.accumulate(one["losses"]) for one in lines if one["variant"] == CENTRALISED
    }
    for one in lines:
        if one["variant"] not in FEDERATED:
            continue
        settings = FederatedSettings("", "", "", rounds=one["rounds"], **FEDERATED[one["variant"]])
        first = federated_method(settings).first_delivered
        losses, whole = one["losses"], central[_data(one)]
        for number in range(first, len(losses)):
            best = min(losses[0], *losses[first : number + 1])
            kept = (losses[0] - best) / (whole[0] - whole[number])
            yield one | {"round": number, "kept": round(float(kept), 4)}


def _data(line: Line) -> tuple[object, ...]:
    return tuple(line[name] for name in ("model", "task", "examples", "validation", "rounds", "seed"))


def export(lines: Sequence[Line], file: Path) -> None:
    """Write the shares of the centralised gain as CSV."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept_gains(lines))


def table(lines: Sequence[Line]) -> str:
    """Tabulate the best losses: mean ± deviation over the seeds, with the bytes of all rounds."""
    cells: dict[tuple[Any, ...], list[Line]] = {}
    for one in lines:
        whole = one["variant"] == CENTRALISED
        spread = ("", "", "") if whole else (one["clients"], one["share"], one["concentration"])
        key = (one["model"], one["task"], one["examples"], *spread, one["variant"])
        cells.setdefault(key, []).append(one)
    rows = [
        "| model | task | examples | clients | share | split | method | base | best | MB | bias | seeds |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for key, same in sorted(cells.items(), key=lambda item: (*map(str, item[0][:6]), _best(item[1])[0])):
        biases = [bias for one in same for bias in one["biases"] if bias is not None]
        federated = same[0]["variant"] in FEDERATED
        mean, deviation = _best(same)
        figures = (
            f"{np.mean([one['losses'][0] for one in same]):.3f}",
            f"{mean:.3f}{deviation}",
            f"{same[0]['bytes'][-1] / 1e6:.3f}" if federated else "",
            f"{np.mean(biases):.3f}" if federated and biases else "",
            str(len(same)),
        )
        rows.append(f"| {' | '.join([*map(_shown, key), *figures])} |")
    return "\n".join(rows)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(same: Sequence[Line]) -> tuple[float, str]:
    """Return the mean of the best rounds' losses, and their deviation as text."""
    best = [min(one["losses"][1:]) for one in same]
    return float(np.mean(best)), f" ± {np.std(best, ddof=1):.3f}" if len(best) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--task")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--concentrations", type=float, nargs="+", default=[0.1, 0.5, 10.0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--share", type=float, default=1.0, help="Share of the clients in a round.")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="Print what the output holds, and run nothing.")
    parser.add_argument("--export", type=Path, help="Write what the output holds as CSV, and run nothing.")
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced; nothing is run.")
    options = parser.parse_args()
    done = read(options.output)
    if options.table:
        print(table(done))
    elif options.export:
        export(done, options.export)
    elif options.page:
        replace_figures(options.page, f"{table(done)}\n")
    elif not (options.model and options.task):
        parser.error("--model and --task are needed to run anything")
    else:
        run_all(options, done)


def run_all(options: argparse.Namespace, done: Sequence[Line]) -> None:
    """Run the cells that the output does not hold."""
    options.settings = FederatedSettings(options.model, "", "", rounds=options.rounds, share=options.share)
    site = load_site(options.settings)
    known = {place(one) for one in done}
    asked = {"model": site.facts.name, "task": Path(options.task).name}
    names = ("clients", "share", "examples", "validation", "rounds")
    asked |= {name: getattr(options, name) for name in names}
    for seed in options.seeds:
        for variant in options.variants:
            for concentration in options.concentrations:
                here = place(asked | {"variant": variant, "seed": seed, "concentration": concentration})
                if here in known:
                    continue
                known.add(here)
                try:
                    line = cell(options, site, variant, concentration, seed)
                except TooFewExamplesError as error:
                    known.remove(here)  # a centralised cell can do with another split
                    print(f"{variant} {concentration}: {error}", flush=True)
                    continue
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{variant} {concentration}: {line['losses']} in {line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
