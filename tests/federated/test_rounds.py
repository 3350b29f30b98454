"""Rounds go on without clients that fail, count nothing twice, and go on after a kill where they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunecast.errors import ConfigurationError, DataError, ModelError, OutputError, UserError
from tunecast.federated.client import InProcess
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import (
    BEST_FILE,
    LAST_FILE,
    Hello,
    History,
    Reply,
    RoundRecord,
    RoundsFolder,
    check_members,
    drawn_clients,
    sifted,
)
from tunecast.federated.site import Arrays

from .conftest import Workshop

ADAPTER = {"lora_r": 2, "local_epochs": 0.5}
SEEDS = {"method": "fedkseed", "seeds": 8, "steps": 2, "learning_rate": 1e-4}


class Unreliable(InProcess):
    """Clients whose replies are changed on the way."""

    def __init__(self, exchange: InProcess, change: Callable[[int, list[Reply]], list[Reply]]) -> None:
        super().__init__(list(exchange.clients.values()))
        self.change = change

    def train(self, number: int, sent: Mapping[str, Arrays]) -> list[Reply]:
        return self.change(number, super().train(number, sent))


def poisoned(reply: Reply) -> Reply:
    return replace(reply, arrays={name: np.full_like(array, np.nan) for name, array in reply.arrays.items()})


def run_with(federation: Workshop, settings: Any, change: Callable[[int, list[Reply]], list[Reply]]) -> Any:
    return federation.run(settings, Unreliable(federation.clients(settings), change))


def test_the_round_goes_on_without_a_client_that_drops_out_and_one_that_sends_nan(
    federation: Workshop, settings: Any
) -> None:
    chosen = settings(**ADAPTER | {"rounds": 1})
    history = run_with(federation, chosen, lambda _, replies: [replies[0], poisoned(replies[1])])
    record = history.records[1]
    assert record.counted == ("north",)
    assert record.left_out["west"] == "no reply in time"
    assert "not finite" in record.left_out["south"]
    alone = federation.client(chosen, "north").train(1, federated_method(chosen).start(federation.site))
    assert all((history.state[name] == array).all() for name, array in alone.arrays.items())


def test_a_reply_that_comes_twice_or_from_another_round_counts_once(
    federation: Workshop, settings: Any
) -> None:
    chosen = settings(**SEEDS)
    late: list[Reply] = []

    def change(number: int, replies: list[Reply]) -> list[Reply]:
        late.extend(replies)
        return [*replies, *replies, *late[:3]] if number == 2 else replies

    assert (
        run_with(federation, chosen, change).state["scalars"] == federation_state(federation, chosen)
    ).all()


def federation_state(federation: Workshop, settings: Any) -> np.ndarray:
    again = replace(settings, output_dir=f"{settings.output_dir}-again")
    return np.asarray(federation.run(again).state["scalars"])


def test_nobody_speaks_for_a_client_that_was_not_asked(federation: Workshop, settings: Any) -> None:
    method = federated_method(settings(**ADAPTER))
    state = method.start(federation.site)
    reply = Reply("stranger", 1, 5, state)
    assert sifted([reply], {"north": state}, method, federation.site, state, 1) == ({}, {})


@pytest.mark.parametrize("method", ["fedkseed", "slora", "fedavg-lora"])
def test_a_server_that_is_killed_goes_on_as_if_it_never_was(
    federation: Workshop, settings: Any, method: str
) -> None:
    values = {"fedkseed": SEEDS, "slora": ADAPTER | {"density": 0.1}, "fedavg-lora": ADAPTER}[method]
    chosen = settings(**values | {"method": method, "rounds": 3})

    def killed(number: int, replies: list[Reply]) -> list[Reply]:
        if number == 2:  # the clients trained, and nothing of it was committed
            raise KeyboardInterrupt
        return replies

    with pytest.raises(KeyboardInterrupt):
        run_with(federation, chosen, killed)
    interrupted = RoundsFolder(Path(chosen.output_dir), chosen).load()
    assert interrupted is not None
    assert len(interrupted.records) == 2
    resumed = federation.run(chosen)
    whole = federation.run(replace(chosen, output_dir=f"{chosen.output_dir}-whole"))
    assert [one.validation_loss for one in resumed.records] == [one.validation_loss for one in whole.records]
    assert resumed.state.keys() == whole.state.keys()
    assert all((resumed.state[name] == array).all() for name, array in whole.state.items())


def test_a_kill_between_the_two_files_of_a_commit_changes_nothing(
    federation: Workshop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(**ADAPTER)
    write = RoundsFolder._write

    def stops(self: RoundsFolder, name: str, history: Any) -> None:
        if name == LAST_FILE and len(history.records) == 3:
            raise KeyboardInterrupt
        write(self, name, history)

    with monkeypatch.context() as patched:
        patched.setattr(RoundsFolder, "_write", stops)
        with pytest.raises(KeyboardInterrupt):
            federation.run(chosen)
    history = federation.run(chosen)
    best = min(history.records[1:], key=lambda record: record.validation_loss)
    assert best.number == 2
    assert (Path(chosen.output_dir) / BEST_FILE).is_file()
    kept = RoundsFolder(Path(chosen.output_dir), chosen).best()
    assert all((kept[name] == array).all() for name, array in history.state.items())


def test_other_settings_do_not_go_on_but_more_rounds_do(federation: Workshop, settings: Any) -> None:
    chosen = settings(**SEEDS | {"rounds": 1})
    federation.run(chosen)
    folder = Path(chosen.output_dir)
    with pytest.raises(ConfigurationError, match="--batch-size: the federation began with 8, not 2"):
        RoundsFolder(folder, replace(chosen, batch_size=2)).load()
    assert len(federation.run(replace(chosen, rounds=2)).records) == 3
    (folder / LAST_FILE).write_bytes(b"damaged")
    with pytest.raises(OutputError, match="damaged"):
        RoundsFolder(folder, chosen).load()


def test_more_rounds_of_slora_need_its_first_stage_as_it_was(federation: Workshop, settings: Any) -> None:
    slora = {"method": "slora", "rounds": 10}
    start = federated_method(settings(**slora)).start(federation.site)
    folder = Path(settings().output_dir)
    RoundsFolder(folder, settings(**slora)).commit(History(start, (RoundRecord(0, 1.0),)), is_best=False)
    longer = slora | {"rounds": 20}
    with pytest.raises(ConfigurationError, match=r"--sparse-rounds: the federation began with 2, not 4\."):
        RoundsFolder(folder, settings(**longer)).load()
    assert RoundsFolder(folder, settings(**longer, sparse_rounds=2)).load() is not None


def test_the_server_stops_if_nobody_has_a_usable_reply(federation: Workshop, settings: Any) -> None:
    chosen = settings(**SEEDS | {"rounds": 5})
    with pytest.raises(UserError, match="No client had a usable reply in 3 rounds: north left out"):
        run_with(federation, chosen, lambda _, replies: [])


def test_a_share_of_the_clients_is_drawn_anew_in_every_round(settings: Any) -> None:
    names = [f"client-{number}" for number in range(8)]
    drawn = [drawn_clients(names, settings(share=0.25), number) for number in range(1, 6)]
    assert all(len(set(one)) == 2 for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1
    assert drawn_clients(names[::-1], settings(share=0.25), 1) == drawn[0]


@pytest.mark.parametrize(
    ("hellos", "kind", "message"),
    [
        (("a", "a"), ConfigurationError, "2 clients have the name a"),
        (("a",), ConfigurationError, "Only 1 of 2 clients came within 120 s"),
        (("a", "empty"), DataError, "Client empty cannot take part: it has no example"),
        (("a", "words"), ModelError, "Client words cannot take part: its vocabulary"),
        (("a", "weights"), ModelError, "Client weights cannot take part: its base model's weights"),
        (("a", "draws"), ModelError, "Client draws cannot take part: its versions of NumPy and torch"),
        (("a", "broken"), DataError, "Client broken cannot take part: reading"),
    ],
)
def test_clients_that_do_not_fit_are_refused_with_their_name(
    federation: Workshop, settings: Any, hellos: tuple[str, ...], kind: type[UserError], message: str
) -> None:
    site = federation.site
    fits = Hello("a", site.weights_hash, site.vocabulary_hash, site.draws_hash, 5, "cpu")
    others = {
        "a": fits,
        "empty": replace(fits, name="empty", examples=0),
        "words": replace(fits, name="words", vocabulary_hash="0"),
        "weights": replace(fits, name="weights", weights_hash="0"),
        "draws": replace(fits, name="draws", draws_hash="0"),
        "broken": Hello("broken", problem="reading model and data failed"),
    }
    with pytest.raises(kind, match=message):
        check_members([others[name] for name in hellos], site, settings(clients=2))


def test_seeds_need_one_kind_of_device(federation: Workshop, settings: Any) -> None:
    site = federation.site
    hello = Hello("a", site.weights_hash, site.vocabulary_hash, site.draws_hash, 5, "cuda")
    with pytest.raises(ModelError, match="draw different directions from one seed"):
        check_members([hello], site, settings(**SEEDS | {"clients": 1}))
    check_members([hello], site, settings(clients=1))


def test_a_client_with_another_model_says_so_in_its_hash(
    federation: Workshop, settings: Any, tmp_path: Path
) -> None:
    import tiny
    from tunecast.federated.site import load_site

    other = load_site(settings(), str(tiny.build_llama(tmp_path / "other", seed=1)))
    assert other.vocabulary_hash == federation.site.vocabulary_hash
    assert other.weights_hash != federation.site.weights_hash
