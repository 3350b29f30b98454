"""The loop over rounds: who takes part, whose replies count, what is kept so that it can go on after a kill.

A round is committed as one file with the state after it and the records of all rounds. A client's work
follows from its round alone, so a round that was cut short is asked for again and gives the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tunecast.atomic import written_whole
from tunecast.errors import ConfigurationError, DataError, ModelError, OutputError, UserError
from tunecast.federated.method import Contribution, FederatedMethod, number_drawn, weights
from tunecast.federated.settings import FEDKSEED, SLORA, FederatedSettings
from tunecast.federated.site import Arrays, Site
from tunecast.progress import Progress, Silent

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

LAST_FILE, BEST_FILE = "rounds.safetensors", "best.safetensors"
EMPTY_ROUNDS = 3
"""Rounds in a row without a usable reply after which the server stops."""
MAY_CHANGE = ("output_dir", "clients", "wait_seconds", "round_seconds", "rounds")
"""Settings that may differ when a federation is resumed."""


@dataclass(frozen=True)
class Hello:
    """A client's first message. ``problem`` says why it cannot take part, if so; it quotes no data."""

    name: str
    weights_hash: str = ""
    vocabulary_hash: str = ""
    draws_hash: str = ""
    examples: int = 0
    device_kind: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Reply:
    """A client's reply to a round.

    Args:
        number: The round that it trained for.
        examples: Number of its examples.
        problem: Why it has no arrays; empty if it has.
        message_bytes: Bytes of the arrays of both messages as Flower serialises them, with NumPy's headers.
    """

    name: str
    number: int
    examples: int = 0
    arrays: Arrays = field(default_factory=dict)
    problem: str = ""
    message_bytes: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round. Round 0 is the base model.

    Args:
        validation_loss: Nats per label token of the server's held-out examples, after the round.
        counted: Clients whose replies were joined.
        left_out: Clients that were asked and do not count, each with the reason.
        down_bytes: Bytes of the arrays that were sent to all clients.
        up_bytes: Bytes of the arrays that were received from all clients.
        message_bytes: Bytes of arrays both ways as Flower serialises them, of the clients that replied.
        bias: See :class:`Joined`.
        seconds: Wall seconds of the round, scoring included.
    """

    number: int
    validation_loss: float
    counted: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    down_bytes: int = 0
    up_bytes: int = 0
    message_bytes: int = 0
    bias: float | None = None
    seconds: float = 0.0


class Exchange(Protocol):
    """How a server reaches its clients."""

    def meet(self) -> Sequence[Hello]:
        """Return the clients that can be reached now."""

    def train(self, number: int, sent: Mapping[str, Arrays]) -> Sequence[Reply]:
        """Send arrays to clients by name, and return the replies that came in time."""


@dataclass(frozen=True)
class History:
    """A federation so far: the state after its last round, and the records from round 0."""

    state: Arrays
    records: tuple[RoundRecord, ...]


class RoundsFolder:
    """Keeps the last round and the best one in the server's folder."""

    def __init__(self, path: Path, settings: FederatedSettings) -> None:
        self.path = path
        self._settings = settings

    def began_with(self) -> FederatedSettings | None:
        """Return the settings of the federation that was begun; None if no round was committed.

        Raises:
            OutputError: The file is damaged.
        """
        found = self._read()
        return found[0] if found else None

    def load(self) -> History | None:
        """Return the history; None if no round was committed.

        Raises:
            ConfigurationError: It was made with other settings.
            OutputError: The file is damaged.
        """
        found = self._read()
        if found is None:
            return None
        before, history = found
        check_same(before, self._settings)
        return history

    def _read(self) -> tuple[FederatedSettings, History] | None:
        from safetensors import SafetensorError, safe_open

        file = self.path / LAST_FILE
        if not file.is_file():
            return None
        try:
            with safe_open(file, framework="numpy") as opened:
                metadata = opened.metadata()
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            before = FederatedSettings.from_json(metadata["settings"])
            records = tuple(_record(values) for values in json.loads(metadata["records"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise OutputError(f"{file} is damaged.", "Delete it to begin again.") from error
        return before, History(state, records)

    def best(self) -> Arrays:
        """Return the state of the best round."""
        from safetensors.numpy import load_file

        return load_file(self.path / BEST_FILE)

    def commit(self, history: History, *, is_best: bool) -> None:
        """Keep a round. After a kill in between, the best one is written again with the same content."""
        self.path.mkdir(parents=True, exist_ok=True)
        if is_best:
            self._write(BEST_FILE, history)
        self._write(LAST_FILE, history)

    def _write(self, name: str, history: History) -> None:
        from safetensors.numpy import save_file

        records = json.dumps([asdict(record) for record in history.records])
        with written_whole(self.path / name, durable=True) as unfinished:
            save_file(history.state, unfinished, {"settings": self._settings.to_json(), "records": records})


def run_rounds(
    settings: FederatedSettings,
    method: FederatedMethod,
    site: Site,
    validation: Sequence[EncodedExample],
    exchange: Exchange,
    folder: RoundsFolder,
    progress: Progress | None = None,
) -> History:
    """Run the rounds that are left, and return the whole history.

    Raises:
        UserError: A client does not fit to the others at the start, or no client replied for three rounds.
    """
    progress = progress or Silent()
    check_members(exchange.meet(), site, settings)
    history = folder.load()
    if history is None:
        state = method.start(site)
        history = History(state, (RoundRecord(0, site.score(site.base, validation)),))
        folder.commit(history, is_best=False)
    progress.log(f"Round 0 of {settings.rounds}: validation loss {history.records[0].validation_loss:.4f}")
    while len(history.records) <= settings.rounds:
        history = _one_round(settings, method, site, validation, exchange, history)
        last = history.records[-1]
        earlier = [record for record in history.records[:-1] if record.number >= method.first_delivered]
        deliverable = last.number >= method.first_delivered
        lowest = min((record.validation_loss for record in earlier), default=float("inf"))
        folder.commit(history, is_best=deliverable and (not earlier or last.validation_loss < lowest))
        progress.log(round_line(last, settings.rounds))
        if all(not one.counted for one in history.records[-EMPTY_ROUNDS:]) and last.number >= EMPTY_ROUNDS:
            raise UserError(
                f"No client had a usable reply in {EMPTY_ROUNDS} rounds: {'; '.join(_reasons(last))}.",
                "Look at the clients' own logs, then go on with --resume.",
            )
    return history


def _one_round(
    settings: FederatedSettings,
    method: FederatedMethod,
    site: Site,
    validation: Sequence[EncodedExample],
    exchange: Exchange,
    history: History,
) -> History:
    began, number = time.monotonic(), len(history.records)
    hellos = {hello.name: hello for hello in exchange.meet()}
    left_out = {name: text for name, hello in hellos.items() if (text := unsuitable(hello, site, settings))}
    chosen = drawn_clients([name for name in hellos if name not in left_out], settings, number)
    sent = {name: method.send(history.state, number, name) for name in chosen}
    replies = exchange.train(number, sent) if sent else []
    usable, refused = sifted(replies, sent, method, site, history.state, number)
    left_out |= refused | dict.fromkeys(set(sent) - set(usable) - set(refused), "no reply in time")
    shares = weights({name: reply.examples for name, reply in usable.items()}, settings)
    contributions = [Contribution(name, shares[name], usable[name].arrays) for name in sorted(usable)]
    joined = method.join(site, history.state, contributions, number)
    with method.installed(site, joined.state) as model:
        loss = site.score(model, validation)
    record = RoundRecord(
        number=number,
        validation_loss=loss,
        counted=tuple(sorted(usable)),
        left_out=left_out,
        down_bytes=sum(array.nbytes for arrays in sent.values() for array in arrays.values()),
        up_bytes=sum(array.nbytes for reply in replies for array in reply.arrays.values()),
        message_bytes=sum(reply.message_bytes for reply in replies),
        bias=joined.bias,
        seconds=time.monotonic() - began,
    )
    return History(joined.state, (*history.records, record))


def sifted(
    replies: Sequence[Reply],
    sent: Mapping[str, Arrays],
    method: FederatedMethod,
    site: Site,
    state: Arrays,
    number: int,
) -> tuple[dict[str, Reply], dict[str, str]]:
    """Return the replies that count, at most one a client, and why others do not."""
    usable: dict[str, Reply] = {}
    refused: dict[str, str] = {}
    for reply in replies:
        if reply.name not in sent or reply.number != number or reply.name in usable:
            continue  # of another round, or a second time
        problem = reply.problem or method.refusal(site, state, reply.arrays, number)
        if problem or reply.examples < 1:
            refused[reply.name] = problem or "it has no examples"
        else:
            usable[reply.name] = reply
    return usable, {name: text for name, text in refused.items() if name not in usable}


def drawn_clients(names: Sequence[str], settings: FederatedSettings, number: int) -> list[str]:
    """Draw the clients of a round by the seed, at least one if there is any."""
    count = number_drawn(settings.share, len(names))
    order = np.random.default_rng([settings.seed, number, 7]).permutation(len(names))
    return sorted(sorted(names)[int(place)] for place in order[:count])


def check_members(hellos: Sequence[Hello], site: Site, settings: FederatedSettings) -> None:
    """Check the clients of a federation before its first round.

    Raises:
        ConfigurationError: Two have one name, or there are fewer than expected.
        DataError: One has nothing to train on.
        ModelError: One has another model or vocabulary.
    """
    names = [hello.name for hello in hellos]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"{names.count(doubled[0])} clients have the name {doubled[0]}.",
            'Give each its own: the name of its folder, or name="…" in its --node-config.',
        )
    if len(hellos) < settings.clients:
        raise ConfigurationError(
            f"Only {len(hellos)} of {settings.clients} clients came within {settings.wait_seconds:g} s.",
            "Start the others, or wait longer with --wait-seconds.",
        )
    for hello in hellos:
        if problem := unsuitable(hello, site, settings):
            kind = DataError if hello.problem or not hello.examples else ModelError
            raise kind(f"Client {hello.name} cannot take part: {problem}.", "Fix it or leave it out.")


def unsuitable(hello: Hello, site: Site, settings: FederatedSettings) -> str:
    """Return why a client cannot take part; empty if it can."""
    if hello.problem:
        return hello.problem
    if not hello.examples:
        return "it has no example to train on"
    if hello.vocabulary_hash != site.vocabulary_hash:
        return "its vocabulary or chat template is not the server's"
    if hello.weights_hash != site.weights_hash:
        return "its base model's weights are not the server's"
    if hello.draws_hash != site.draws_hash:
        return "its versions of NumPy and torch draw other numbers from one seed than the server's"
    if settings.method == FEDKSEED and hello.device_kind != site.device_kind:
        return (
            f"it computes on {hello.device_kind} and the server on {site.device_kind}, "
            "which draw different directions from one seed"
        )
    return ""


def round_line(record: RoundRecord, rounds: int) -> str:
    """Say in one line how a round went."""
    bias = f", bias {record.bias:.3f}" if record.bias is not None else ""
    traffic = f"{record.down_bytes:,} bytes down, {record.up_bytes:,} up"
    line = f"Round {record.number} of {rounds}: validation loss {record.validation_loss:.4f}"
    return (
        f"{line}, {len(record.counted)} clients, {traffic}{bias}{''.join(f'; {r}' for r in _reasons(record))}"
    )


def _reasons(record: RoundRecord) -> list[str]:
    return [f"{name} left out: {reason}" for name, reason in sorted(record.left_out.items())]


def _record(values: dict[str, object]) -> RoundRecord:
    return RoundRecord(**{**values, "counted": tuple(values["counted"])})  # type: ignore[arg-type]


def check_same(before: FederatedSettings, now: FederatedSettings) -> None:
    """Check that a federation goes on with the settings that it began with, but those that may change.

    Raises:
        ConfigurationError: Another setting differs.
    """
    old, new = (asdict(one) | {"sparse_rounds": one.first_rounds} for one in (before, now))
    ignored = MAY_CHANGE if now.method == SLORA else (*MAY_CHANGE, "sparse_rounds")
    name = next((name for name in old if name not in ignored and old[name] != new[name]), "")
    if name:
        raise ConfigurationError(
            f"--{name.replace('_', '-')}: the federation began with {old[name]}, not {new[name]}.",
            "Repeat its options, or begin another in another --output-dir.",
        )
