"""The benchmark of trials that are cooled down when they have won."""

from __future__ import annotations

from pathlib import Path

from cooldown import Ends, ends, pipelines, row
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Runner
from tunecast_benchmarks.small_studies import validated_alike


def test_each_way_follows_what_it_saw() -> None:
    # By the whole short trial the first is best, by the constant one the second.
    found = [Ends(1.0, 2.0, 0.8, 0.7, 0.9), Ends(2.0, 1.0, 0.5, 0.6, 0.5)]
    name, seed, restarted, continued, *best, short, constant = row("task", 3, found)
    assert (name, seed, restarted, continued) == ("task", "3", "0.800", "0.600")
    assert best == ["0.500", "0.600", "0.500"]
    assert (short, constant) == ("-1.00", "1.00")


def test_a_constant_trial_is_measured_where_a_short_one_ends(tiny_llama: Path, toy_data: Path) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data), objective="loss", test_examples=8, threads=1)
    runner = Runner(validated_alike(prepare_task(settings, Silent()).training_task))
    pipeline = pipelines(runner.training_task.facts, (1.0, 2.0))[1]
    found = ends(runner, pipeline, 6000, 0)
    assert found.short != found.constant
    assert found.equal != found.restarted, "the schedules differ"
    assert max(found.restarted, found.continued, found.equal) < found.constant + 0.1, "more is trained"
