from __future__ import annotations

import subprocess
import sys

import tunecast.scaling

HEAVY = ("torch", "transformers", "pandas", "plotly", "sqlalchemy", "pyarrow", "scipy")


def test_importing_needs_nothing_heavy() -> None:
    code = f"import sys, tunecast.scaling; heavy = set({HEAVY}) & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist() -> None:
    assert len(set(tunecast.scaling.__all__)) == len(tunecast.scaling.__all__)
    for name in tunecast.scaling.__all__:
        assert getattr(tunecast.scaling, name) is not None
