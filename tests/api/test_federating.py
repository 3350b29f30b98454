"""``federate`` reads all that it can before it starts a process, and replaces nothing of others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.api.federating import _begun_or_new, _result, federate
from tunecast.errors import ConfigurationError, DataError, ModelError, OutputError, UserError
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import History, RoundRecord, RoundsFolder
from tunecast.federated.settings import FederatedSettings


@pytest.fixture
def clients(tmp_path: Path) -> list[str]:
    for number, name in enumerate(("north", "south")):
        write_rows(tmp_path / name / "data.jsonl", number)
    return [str(tmp_path / name) for name in ("north", "south")]


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> FederatedSettings:
    write_rows(tmp_path / "validation.jsonl", 9)
    return FederatedSettings(
        str(tiny_llama), str(tmp_path / "validation.jsonl"), str(tmp_path / "out"), rounds=2
    )


def write_rows(file: Path, seed: int) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in tiny.toy_rows(12, seed=seed)), encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clients": []}, "There are no clients"),
        ({"simulate": True, "at_once": 0}, "--at-once must be at least 1"),
        ({"at_once": 2}, "--at-once has no effect without --simulate"),
        ({"insecure": True}, "--insecure has no effect without --superlink"),
        ({"root_certificates": "ca.crt"}, "--root-certificates has no effect without --superlink"),
        (
            {"superlink": "a:1", "insecure": True, "root_certificates": "ca.crt"},
            "--insecure and --root-certificates were both given",
        ),
        ({"superlink": "a:1", "root_certificates": "no.crt"}, "--root-certificates: no.crt does not exist"),
        ({"simulate": True, "superlink": "a:1"}, "--simulate and --superlink were both given"),
        ({"superlink": "127.0.0.1:9"}, "--clients and --superlink were both given"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    settings: FederatedSettings, clients: list[str], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        federate(settings, **{"clients": clients, **given})
    assert not Path(settings.output_dir).exists()


def test_inputs_are_read_before_any_process_starts(
    settings: FederatedSettings, clients: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"--clients .*nowhere: there is no such file"):
        federate(settings, [str(tmp_path / "nowhere")])
    shutil.copytree(tmp_path / "north", tmp_path / "other" / "north")
    with pytest.raises(ConfigurationError, match="2 clients have the name north"):
        federate(settings, [clients[0], str(tmp_path / "other" / "north")])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "columns.jsonl").write_text('{"size": 1, "colour": 2}\n', encoding="utf-8")
    for name in ("empty.jsonl", "folder", "columns.jsonl"):
        with pytest.raises(DataError, match=f"--clients: .*{name}"):
            federate(settings, [*clients, str(tmp_path / name)])
    with pytest.raises(DataError) as raised:
        federate(settings, [*clients, str(tmp_path / "columns.jsonl")])
    assert raised.value.hint == "Rename the columns to prompt and completion, or to text and label."
    with pytest.raises(ConfigurationError, match="--device cuda:7: this machine has no such device"):
        federate(replace(settings, device="cuda:7"), clients)
    with pytest.raises(DataError, match=r"--validation: .*nothing"):
        federate(replace(settings, validation=str(tmp_path / "nothing")), clients)
    with pytest.raises(ModelError, match="there is no folder or file"):
        federate(replace(settings, model="./no-model"), clients)
    assert not Path(settings.output_dir).exists()


@pytest.mark.parametrize("name", ["session.json", "best"])
def test_the_model_of_a_session_is_never_replaced(
    settings: FederatedSettings, clients: list[str], name: str
) -> None:
    place = Path(settings.output_dir) / name
    place.mkdir(parents=True)
    with pytest.raises(OutputError, match=f"has {name}, which no federation wrote"):
        federate(settings, clients)
    with pytest.raises(OutputError, match="holds no round of a federation"):
        federate(settings, clients, resume=True)
    assert place.is_dir()


def test_a_federation_may_begin_again_in_its_own_folder(settings: FederatedSettings) -> None:
    out = Path(settings.output_dir)
    (out / "best").mkdir(parents=True)
    (out / "federation.json").write_text("{}", encoding="utf-8")
    assert _begun_or_new(settings, resume=False, is_here=True) == settings


def test_more_rounds_keep_the_sparse_ones_that_it_began_with(settings: FederatedSettings) -> None:
    begun = replace(settings, method="slora", rounds=5)
    folder = RoundsFolder(Path(settings.output_dir), begun)
    folder.commit(History({}, (RoundRecord(0, 1.0),)), is_best=False)
    more = _begun_or_new(replace(begun, rounds=10), resume=True, is_here=True)
    assert (begun.first_rounds, more.first_rounds) == (1, 1)
    assert federated_method(more).first_delivered == 2
    with pytest.raises(ConfigurationError, match="--lora-r: the federation began with 8, not 4"):
        _begun_or_new(replace(begun, lora_r=4), resume=True, is_here=True)
    with pytest.raises(OutputError, match="holds a federation"):
        _begun_or_new(begun, resume=False, is_here=True)


def test_a_record_of_fewer_rounds_is_not_the_result(tmp_path: Path) -> None:
    record = {"rounds": [{}, {}, {}]}
    (tmp_path / "federation.json").write_text(json.dumps(record), encoding="utf-8")
    assert _result(tmp_path, 2) == record
    with pytest.raises(UserError, match="ended before its last round"):
        _result(tmp_path, 3)
