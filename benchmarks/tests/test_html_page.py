"""A comparison of strategies in words, and as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from replay.made_up import many_tasks
from tunecast.replay.cases import cases_of
from tunecast.replay.comparing import Comparison, compare_strategies
from tunecast.replay.folds import Fold
from tunecast_benchmarks.html_page import render, write_comparison
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import difference_caption, notes

STRATEGIES = ("random", "asha", "fixed-best", "portfolio", "nearest-task", "fixed-baseline")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = many_tasks(16, shift=0.1)
    return compare_strategies(cases_of(runs)[0], runs, STRATEGIES, seeds=1, thinking_seconds=0.0)


@pytest.fixture(scope="module")
def verdict(comparison: Comparison) -> Verdict:
    return Verdict(comparison)


def test_where_no_two_could_differ_the_caption_says_so(verdict: Verdict) -> None:
    # Eight families: at best a p of 2 / 256 for each pair.
    for strategies, unable in ((STRATEGIES[:4], False), (STRATEGIES[:5], True)):
        places = [STRATEGIES.index(name) for name in strategies]
        part = replace(verdict.comparison, strategies=strategies, regrets=verdict.comparison.regrets[places])
        assert ("no two could differ" in difference_caption(Verdict(part))) == unable


def test_dear_answers_are_told_beside_a_trial(comparison: Comparison) -> None:
    seconds = float(np.median([case.baseline_seconds for case in comparison.cases]))
    usage = dict(comparison.usage)
    usage["asha"] = replace(usage["asha"], charged_seconds=0.009 * seconds)
    assert not any("1% of the median" in note for note in notes(Verdict(replace(comparison, usage=usage))))
    usage["random"] = replace(usage["random"], charged_seconds=0.03 * seconds)
    (said,) = (n for n in notes(Verdict(replace(comparison, usage=usage))) if "1% of the median" in n)
    assert said.endswith("for every answer: random 3.0%.")


def test_the_baselines_rates_are_said_to_be_unfair_to_tiny_models(comparison: Comparison) -> None:
    verdict = Verdict(comparison)
    assert not any("far too low" in note for note in notes(verdict))
    cases = tuple(replace(case, model=replace(case.model, parameters=2_000_000)) for case in comparison.cases)
    (said,) = (note for note in notes(Verdict(replace(comparison, cases=cases))) if "far too low" in note)
    assert said.startswith(
        "fixed-baseline: 2e-4 and 3e-4 are far too low for models as tiny as nano, where fixed-best"
    )
    without = replace(comparison, cases=cases, strategies=("random", *STRATEGIES[1:-1], "transfer"))
    (said,) = (note for note in notes(Verdict(without)) if "far too low" in note)
    assert said.startswith("fixed-best stands for fixed-baseline and fixed-3e-4")


def test_what_fixed_best_knows_is_said_by_fold(comparison: Comparison) -> None:
    for fold, words in ((Fold.TASK, "folds of that model"), (Fold.MODEL, "folds of other base models")):
        assert any(words in note for note in notes(Verdict(replace(comparison, fold=fold))))


def test_the_page_needs_no_network_and_escapes_names(verdict: Verdict, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    write_comparison(verdict, path)
    text = path.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    figures = re.findall(r'<script type="application/json" id="figure-([\w-]+)">(.*?)</script>', text, re.S)
    assert [name for name, _ in figures][:2] == ["final", "anytime"]
    final = json.loads(figures[0][1])["data"]
    assert all(trace["error_x"]["array"] for trace in final)
    assert all(trace["marker"]["color"].startswith("var(--") for trace in final)
    outside = text.split("<script")[0]
    assert "http://" not in outside
    assert "https://" not in outside
    for sentence in notes(verdict):
        assert sentence[:40].replace("'", "&#39;") in text
    for name in STRATEGIES:
        assert name in text
    assert len(verdict.rows()) == len(STRATEGIES)
    family_of = dict.fromkeys(verdict.comparison.family_of, "<script>alert(1)</script>")
    evil = Verdict(replace(verdict.comparison, family_of=family_of))
    assert "<script>alert(1)" not in render(evil)
