"""A session's folder from somebody else runs no code and opens no store unasked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sessions import call_main
from tunecast.errors import ConfigurationError
from tunecast.session.consent import check_consent, needs_consent
from tunecast.session.settings import SessionSettings

CODE = {"trust_remote_code": True, "objective": "sent:score"}


def sent(folder: Path, **configuration: Any) -> Path:
    """A session's folder with a module beside it that leaves a trace where it is imported."""
    settings = SessionSettings(str(folder / "model"), str(folder / "data.jsonl"), workers=1).as_json()
    content = {"id": "0", "configuration": settings | configuration, "dataset_fingerprint": "of some rows"}
    (folder / "out").mkdir()
    (folder / "out" / "session.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "sent.py").write_text("open('trace', 'w').close()\nscore = len\n", encoding="utf-8")
    return folder / "out"


@pytest.mark.parametrize(
    ("configuration", "repeated"),
    [
        ({"trust_remote_code": True}, "--trust-remote-code"),
        ({"objective": "sent:score"}, "--objective sent:score"),
        (CODE, "--trust-remote-code --objective sent:score"),
        ({"store": "postgresql://host.invalid/runs"}, "--store postgresql://host.invalid/runs"),
        ({"ray_address": "host.invalid:6379"}, "--ray-address host.invalid:6379"),
        ({"guard": ["python", "sent.yaml"]}, "--guard python --guard sent.yaml"),
    ],
)
def test_resuming_repeats_the_flags_that_reach_outside(
    configuration: dict[str, Any], repeated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = sent(tmp_path, **configuration)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "sent", raising=False)
    code, _, err = call_main("tune", "--resume", "--output-dir", str(out))
    assert code == 2
    assert f"repeat the flag{'s' * (len(configuration) > 1)}: {repeated}\n" in err
    assert not (tmp_path / "trace").exists()
    _, _, err = call_main("tune", "--resume", "--output-dir", str(out), *repeated.split(" "))
    assert "repeat the flag" not in err
    assert (tmp_path / "trace").exists() == ("objective" in configuration)


def test_a_flag_of_another_setting_is_no_consent() -> None:
    assert needs_consent({"trust_remote_code": False, "objective": "rougeL", "store": ""}) == []
    assert needs_consent({"trust_remote_code": None, "objective": 5, "store": 5, "guard": 5}) == []
    assert needs_consent({"guard": ["python", "kept.jsonl", "lm-eval:arc_easy", 5]}) == []
    check_consent(CODE, CODE, "out")
    with pytest.raises(ConfigurationError, match=r"run code .* \(--trust-remote-code\)"):
        check_consent(CODE, {"objective": "sent:score"}, "out")
    both = {"trust_remote_code": True, "store": "/home/me/runs.sqlite"}
    with pytest.raises(ConfigurationError, match="run code from outside of Tunecast and open a store"):
        check_consent(both, {}, "out")
    with pytest.raises(ConfigurationError, match="asks to open a store outside of its folder"):
        check_consent(both, {"trust_remote_code": True}, "out")


def test_a_copied_session_is_resumed_where_it_is(tmp_path: Path) -> None:
    out = sent(tmp_path, output_dir=str(tmp_path / "elsewhere"), objective="rougeL")
    code, _, err = call_main("tune", "--resume", "--output-dir", str(out))
    assert code == 2
    assert f"no folder or file '{tmp_path / 'model'}'" in err
    assert not (tmp_path / "elsewhere").exists()
