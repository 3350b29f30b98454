"""``tunecast federate``: finetune on data that stays with its owners."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tunecast.cli import completion, options
from tunecast.models.load import MODEL_FORMATS


def command(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR]...", help="More clients, after --clients.")
    ] = None,
    model: str = typer.Option(
        ..., "--model", help=f"Base model: {MODEL_FORMATS}.", autocompletion=completion.models
    ),
    clients: Annotated[
        list[str] | None,
        typer.Option("--clients", help="Folder or file of each client's data: --clients A B C, or repeated."),
    ] = None,
    validation: str = typer.Option(
        ..., "--validation", help="Held-out examples of the server: file or folder."
    ),
    method: str = typer.Option("fedavg-lora", "--method", help="fedkseed, slora or fedavg-lora."),
    rounds: int = typer.Option(10, "--rounds", help="Rounds of training."),
    output_dir: str = typer.Option("tunecast-federated", "--output-dir", help="Folder for all output."),
    simulate: bool = typer.Option(False, "--simulate", help="Use Flower's simulation engine; no network."),
    at_once: int = typer.Option(1, "--at-once", help="Simulated clients that train at the same time."),
    superlink: str = typer.Option(
        "", "--superlink", help="HOST:PORT of a SuperLink whose SuperNodes hold the data."
    ),
    root_certificates: str = typer.Option(
        "", "--root-certificates", help="Certificate file of that SuperLink."
    ),
    insecure: bool = typer.Option(False, "--insecure", help="Connect to that SuperLink without TLS."),
    expected: int = typer.Option(None, "--expect", help="Clients to wait for on a SuperLink. (default: 1)"),
    share: float = typer.Option(1.0, "--share", help="Share of the clients that train in a round."),
    weighting: str = typer.Option(
        "examples", "--weighting", help="Weight clients by number of examples, or equal."
    ),
    round_seconds: float = typer.Option(
        3600.0, "--round-seconds", help="Longest wait for a round's replies."
    ),
    wait_seconds: float = typer.Option(
        120.0, "--wait-seconds", help="Longest wait for the clients at the start."
    ),
    learning_rate: float = typer.Option(
        None, "--learning-rate", help="Rate of clients. (default: the method's)"
    ),
    batch_size: int = typer.Option(8, "--batch-size", help="Examples per step of a client."),
    local_epochs: float = typer.Option(1.0, "--local-epochs", help="LoRA: passes of a client in a round."),
    max_length: int = typer.Option(512, "--max-length", help="Longest example in tokens."),
    lora_r: int = typer.Option(8, "--lora-r", help="LoRA: rank."),
    lora_alpha: int = typer.Option(16, "--lora-alpha", help="LoRA: alpha."),
    aggregation: str = typer.Option("average", "--aggregation", help="LoRA: average, freeze-a or product."),
    density: float = typer.Option(0.01, "--density", help="SLoRA: share of the entries that stage 1 trains."),
    sparse_rounds: int = typer.Option(
        None, "--sparse-rounds", help="SLoRA: rounds of stage 1. (default: a fifth)"
    ),
    sparse_rate: float = typer.Option(None, "--sparse-rate", help="SLoRA: rate of stage 1."),
    seeds: int = typer.Option(4096, "--seeds", help="FedKSeed: number of directions, K."),
    steps: int = typer.Option(200, "--steps", help="FedKSeed: steps of a client in a round, tau."),
    perturbation: float = typer.Option(5e-4, "--perturbation", help="FedKSeed: epsilon."),
    pro: bool = typer.Option(False, "--pro", help="FedKSeed-Pro: draw directions by their slopes."),
    seed: int = typer.Option(0, "--seed", help="Seed of everything random."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda or cuda:N, on every side."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the federation in the output folder."),
    as_json: options.AsJson = False,
) -> None:
    """Finetune with clients whose data stays with them, and deliver the best round."""
    values = dict(locals())
    from dataclasses import fields

    from tunecast.api.federating import federate
    from tunecast.federated.settings import FederatedSettings
    from tunecast.report.live import RichProgress

    if not superlink:
        options.refuse({"--expect": expected}, "has no effect without --superlink")
    known = {field.name for field in fields(FederatedSettings)} - {"clients"}
    settings = FederatedSettings(
        clients=1 if expected is None else expected,
        **{name: value for name, value in values.items() if name in known},
    )
    with RichProgress() as progress:
        record = federate(
            settings,
            [*(clients or []), *(more or [])],
            simulate=simulate,
            at_once=at_once,
            superlink=superlink,
            root_certificates=root_certificates,
            insecure=insecure,
            resume=resume,
            progress=progress,
        )
    typer.echo(json.dumps(record, indent=2) if as_json else summary(record))


def summary(record: dict[str, Any]) -> str:
    """Say what the federation delivered."""
    rounds, best = record["rounds"], record["best_round"]
    base, loss = rounds[0]["validation_loss"], rounds[best]["validation_loss"]
    moved = sum(one["down_bytes"] + one["up_bytes"] for one in rounds)
    verdict = "" if record["better_than_base"] else " No round was better than the base model."
    return (
        f"Round {best}: validation loss {loss:.4f}, base model {base:.4f}; {moved:,} bytes moved.{verdict}\n"
        f"Model and card: {record['output_dir']}/best"
    )
