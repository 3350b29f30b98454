"""Records of 0.1.0 under the names of today."""

from __future__ import annotations

from tunecast.store.record_names import current_record, current_strategy


def test_the_expert_of_0_1_0_is_the_baseline() -> None:
    old = {
        "strategy": "fixed-expert",
        "winner": "expert",
        "contenders": [{"name": "zero_shot", "step": 0}, {"name": "expert", "step": 5}],
        "configuration": {"strategy": "fixed-expert", "seed": 3},
    }
    assert current_record(old) == {
        "strategy": "fixed-baseline",
        "winner": "baseline",
        "contenders": [{"name": "zero_shot", "step": 0}, {"name": "baseline", "step": 5}],
        "configuration": {"strategy": "fixed-baseline", "seed": 3},
    }
    assert old["winner"] == "expert"


def test_a_record_of_today_stays() -> None:
    record = {"strategy": "transfer", "winner": "incumbent", "contenders": [], "configuration": {"seed": 1}}
    assert current_record(record) == record
    assert current_strategy({"seed": 1}) == {"seed": 1}
    assert current_record({"winner": None}) == {"winner": None}


def test_what_was_advised_is_transfer_now() -> None:
    assert current_strategy({"strategy": "advised", "seed": 1}) == {"strategy": "transfer", "seed": 1}
