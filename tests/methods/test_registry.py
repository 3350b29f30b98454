"""The register of methods, and methods of other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

import workshop
from tunecast.cli.options import fixed_values
from tunecast.errors import ConfigurationError
from tunecast.methods import Full, Restrictions, check_names, get_method, method_names, register

PLUGIN = """
from tunecast.methods import Full

class Twin(Full):
    name = "twin"
"""
METADATA = "Metadata-Version: 2.1\nName: tunecast-twin\nVersion: 1.0\n"
ASK = """
sys.path.insert(0, arguments[0])
from tunecast.methods import get_method, method_names
print(json.dumps([list(method_names()), get_method("twin").delivers]))
"""


def test_finds_a_method_by_name_or_suggests_the_nearest() -> None:
    assert [get_method(name).name for name in method_names()] == list(method_names())
    with pytest.raises(ConfigurationError, match="Did you mean lora"):
        get_method("lorra")


@pytest.mark.parametrize("name", ["dora", "rsLoRA", "pissa", "lora-plus", "LoRA+"])
def test_a_variant_of_lora_is_one_hyperparameter(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        get_method(name)
    flag = caught.value.hint.partition("That is lora with --fix ")[2].partition(". ")[0]
    check_names(Restrictions(("lora",), fixed_values([flag])))


def test_another_package_brings_a_method_by_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "tunecast_twin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[tunecast.methods]\ntwin = tunecast_twin:Twin\n")
    (tmp_path / "tunecast_twin.py").write_text(PLUGIN)
    names, delivers = workshop.fresh_process(ASK, str(tmp_path))
    assert names == [*method_names(), "twin"]
    assert delivers == "model"


class Nameless(Full):
    name = ""


class Undelivered(Full):
    name = "undelivered"
    delivers = "nothing"


@pytest.mark.parametrize(
    ("method", "complaint"), [(Full(), "taken"), (Nameless(), "missing"), (Undelivered(), "delivers")]
)
def test_refuses_what_is_incomplete(method: Full, complaint: str) -> None:
    before = method_names()
    with pytest.raises(ValueError, match=complaint):
        register(method)
    assert method_names() == before
