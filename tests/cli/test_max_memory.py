"""``tunecast tune --max-memory-gb`` from end to end, where full finetuning needs the most memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tiny
from sessions import FLAGS, IN_PROCESS, call_main
from tunecast.estimate.constants import FRAMEWORK_BYTES
from tunecast.hardware.main_memory import main_memory_bytes
from tunecast.store import Store

COMPUTE = ("--device", "cpu", "--dtype", "float32")
"""Which type of number is fastest, and so chosen, depends on the processor; what fits depends on the type."""
WITHOUT_FULL = f"{(FRAMEWORK_BYTES['cpu'] + 35_000_000) / 1e9:.3f}"
"""Between the largest adapter and the smallest full finetuning."""
ONLY_IA3 = f"{(FRAMEWORK_BYTES['cpu'] + 15_000_000) / 1e9:.3f}"
"""Below the smallest LoRA of rank 64."""


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_llama(tmp_path_factory.mktemp("wide-llama"), width=384)


def session(model: Path, data: Path, folder: Path, *flags: str) -> tuple[dict[str, Any], str, Counter[str]]:
    """A session on a CPU: its result, its messages, and the trials by method."""
    given = ("--model", str(model), "--data", str(data), "--output-dir", str(folder), *COMPUTE)
    code, out, err = call_main(
        "tune", *given, *FLAGS, *IN_PROCESS, "--methods", "lora,full,ia3", *flags, "--json"
    )
    assert code == 0, err[-3000:]
    with Store.open(folder / "runs.sqlite", create=False) as store:
        methods = Counter(run.pipeline.method for run in store.runs())
    return json.loads(out), err, methods


def test_full_finetuning_is_left_out(wide_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ("--max-memory-gb", WITHOUT_FULL, "--budget", "5-trials", "--epochs", "0.5")
    result, messages, methods = session(wide_llama, toy_data, tmp_path / "out", *flags)
    assert methods["full"] == 0
    assert methods["lora"] + methods["ia3"] == 5
    warning = next(text for text in result["warnings"] if "left out" in text)
    assert f"--max-memory-gb {WITHOUT_FULL}" in warning
    assert "(full " in warning
    assert warning in messages.replace("\n", " ")
    assert "candidates left out" in messages
    assert result["test"]["baseline"]["loss"] > 0


def test_a_baseline_that_does_not_fit_is_not_trained(
    wide_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--max-memory-gb", ONLY_IA3, "--fix", "lora_r=64", "--budget", "2-trials", "--epochs", "0.5")
    result, _, methods = session(wide_llama, toy_data, tmp_path / "out", *flags)
    assert methods == {"zero-shot": 1, "ia3": 2}
    assert result["test"]["baseline"] is None
    assert result["incumbent"]["pipeline"]["method"] == "ia3"
    assert any("The baseline is one of them" in text for text in result["warnings"])
    assert not any("The budget brought the baseline" in text for text in result["warnings"])


def dry(model: Path, data: Path, *flags: str) -> tuple[int, str, str]:
    given = ("--model", str(model), "--data", str(data), *COMPUTE, "--dry-run", "--json")
    return call_main("tune", *given, *flags)


def test_a_dry_run_tells_what_is_left(wide_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    code, out, err = dry(wide_llama, toy_data)
    assert code == 0, err
    everything = json.loads(out)["candidates"]
    assert (everything["left_out"], everything["baseline_fits"]) == (0, True)
    (tmp_path / "tune.yaml").write_text(f"max-memory-gb: {WITHOUT_FULL}\n")
    code, out, err = dry(wide_llama, toy_data, "--config", str(tmp_path / "tune.yaml"))
    assert code == 0, err
    found = json.loads(out)
    assert found["configuration"]["max_memory_gb"] == float(WITHOUT_FULL)
    assert found["candidates"]["worker_bytes"] == pytest.approx(float(WITHOUT_FULL) * 1e9, abs=1)
    assert 0 < found["candidates"]["left_out"] < everything["left"]
    # Of the recommended ones, those that do not fit are no candidates in the first place.
    assert found["candidates"]["left"] + found["candidates"]["left_out"] < everything["left"]
    assert "left out" in found["warnings"][-1]


def test_a_limit_below_everything_is_refused(wide_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ("--model", str(wide_llama), "--data", str(toy_data), *COMPUTE, "--methods", "lora,full,ia3")
    out = tmp_path / "out"
    code, printed, err = call_main(
        "tune", *flags, *IN_PROCESS, "--output-dir", str(out), "--max-memory-gb", "0.1"
    )
    assert (code, printed) == (2, "")
    assert "No candidate pipeline fits --max-memory-gb 0.1" in err
    assert "Give at least --max-memory-gb 0.42" in err
    assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.slow
def test_a_session_that_goes_on_keeps_its_limit(wide_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    flags = ("--budget", "1-trials", "--epochs", "0.5", "--strategy", "random")
    result, messages, _ = session(wide_llama, toy_data, folder, *flags)
    assert not any("left out" in text for text in result["warnings"])
    assert "0 of " in messages
    state = json.loads((folder / "session.json").read_text())
    assert state["worker_bytes"] == main_memory_bytes()
    del state["record"]  # as if it had begun on a machine with less memory, and not ended
    (folder / "session.json").write_text(
        json.dumps({**state, "worker_bytes": int(float(WITHOUT_FULL) * 1e9)})
    )
    resumed, _, methods = session(wide_llama, toy_data, folder, *flags, "--resume")
    assert any("left out" in text for text in resumed["warnings"])
    assert resumed["test"] == result["test"]
    assert methods["lora"] == 1
