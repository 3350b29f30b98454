"""The prior as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planted_runs import planted_dataset, planted_model, planted_pipeline, planted_runs
from tunecast.errors import StoreError
from tunecast.surrogates import Prior, Setting, read_prior, shipped_prior
from tunecast.surrogates.features import feature_rows
from tunecast.surrogates.train import train


@pytest.fixture(scope="module")
def prior() -> Prior:
    return train(planted_runs(), families=("forest",))


@pytest.fixture
def saved(prior: Prior, tmp_path: Path) -> Path:
    prior.save(tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


SETTING = Setting(planted_dataset(1), planted_model(), 64_000, 400, 4.0)


def test_read_again_it_says_the_same(prior: Prior, saved: Path) -> None:
    draw = np.random.default_rng(0)
    rows = feature_rows(SETTING, [planted_pipeline(draw, SETTING.model) for _ in range(5)])
    one, other = prior.predict(SETTING, rows), read_prior(saved).predict(SETTING, rows)
    for name in ("end", "variance", "shared", "failure", "log_seconds_per_token"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert read_prior(saved).provenance == prior.provenance


def test_damage_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        read_prior(saved)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"no prior at all", b"\x02\0\0\0\0\0\0\0{}"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(StoreError, match=r"cannot be read|damaged"):
            read_prior(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be read"):
        read_prior(tmp_path / "nowhere")


def test_another_version_is_refused(prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunecast.surrogates.prior.FEATURES_VERSION", 0)
    prior.save(tmp_path / "old")
    monkeypatch.undo()
    with pytest.raises(StoreError, match="another version"):
        read_prior(tmp_path / "old")


def test_the_shipped_prior_is_small_and_needs_numpy_alone() -> None:
    path = shipped_prior()
    assert path is not None
    assert path.stat().st_size < 3e6
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom tunecast.surrogates import read_prior\n"
        f"read_prior(Path({str(path)!r}))\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "sklearn", "gpytorch", "scipy", "sqlalchemy", "pyarrow"}
    assert not heavy & set(json.loads(done.stdout))


def test_the_shipped_prior_has_not_seen_what_is_held_back() -> None:
    path = shipped_prior()
    assert path is not None
    tasks = read_prior(path).provenance.tasks
    held_back = ("_slots", "_match", "privacy_question_category", "e2e_nlg")
    assert not [task for task in tasks if task.endswith(held_back)]
