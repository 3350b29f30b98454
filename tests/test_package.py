from __future__ import annotations

import subprocess
import sys

import pytest

import tunecast


def test_public_names_are_exactly_these() -> None:
    own = ["Question", "SessionSettings", "__version__", "evaluate", "export", "merge", "predict"]
    assert [*own, "recommend", "train", "tune"] == tunecast.__all__
    for name in tunecast.__all__:
        assert getattr(tunecast, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tuna'"):
        _ = tunecast.tuna


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "('torch', 'transformers', 'numpy', 'rich')"
    code = f"import sys, tunecast; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tab_completion_shows_the_functions_before_their_first_use() -> None:
    code = "import tunecast; print(set(tunecast.__all__) - set(dir(tunecast)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
