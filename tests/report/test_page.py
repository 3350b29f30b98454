from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from report.sample_session import SAMPLES, failures, full_session, make_record, make_runs
from tunecast.report.page import write_report
from tunecast.results import DataForecast, SampleOutput

FIGURE = re.compile(r'<script type="application/json" id="figure-([\w-]+)">(.*?)</script>', re.S)


def written(tmp_path: Path, record: object, runs: object) -> str:
    path = tmp_path / "out" / "report.html"
    write_report(record, runs, path)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def without_scripts(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def test_report_is_one_file_that_names_no_network_address(tmp_path: Path) -> None:
    record, runs = full_session()
    page = written(tmp_path, record, runs)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert page.count("plotly.js v") == 1
    assert not re.search(r"(src|href|action)\s*=\s*[\"']?(https?:|//)", without_scripts(page))
    assert "default-src 'none'" in page


def test_report_shows_every_part(tmp_path: Path) -> None:
    record, runs = full_session()
    page = written(tmp_path, record, runs)
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Comparison",
        "What more data would bring",
        "Curves of all trials",
        "Incumbent over time",
        "Cost against quality",
        "Hyperparameters against loss",
        "Failures",
        "Example outputs",
        "Warnings",
        "Load the model",
    ]
    names = [name for name, _ in FIGURE.findall(page)]
    assert names[:7] == [
        "scores-loss",
        "scores-metric",
        "forecast",
        "curves",
        "incumbent",
        "cost-seconds",
        "cost-bytes",
    ]
    assert {"hyper-learning_rate", "hyper-lora_r", "hyper-neftune_noise_alpha"} <= set(names)
    for _, figure in FIGURE.findall(page):
        assert json.loads(figure)["data"]


@pytest.mark.parametrize(
    "hostile", ["<script>window.hacked=1</script>", "</script><img src=x onerror=hack()>", '"><b onclick=x>']
)
def test_text_from_users_is_escaped_everywhere(tmp_path: Path, hostile: str) -> None:
    record, runs = full_session()
    task = dataclasses.replace(record.task, dataset=hostile, model=hostile)
    pipeline = dataclasses.replace(
        runs[2].pipeline, hyperparameters={"learning_rate": 1e-4, hostile: hostile}
    )
    runs[2] = dataclasses.replace(runs[2], pipeline=pipeline)
    failed = dataclasses.replace(runs[-1], error=dataclasses.replace(runs[-1].error, kind=hostile))
    record = dataclasses.replace(
        record,
        task=task,
        samples=(SampleOutput(hostile, hostile, hostile, hostile),),
        warnings=(hostile,),
        configuration={"model": hostile, hostile: hostile},
        id=hostile,
        budget=hostile,
    )
    page = written(tmp_path, record, [*runs, failed])
    assert hostile not in page
    assert len(re.findall(r"<script>", page)) == 2


def test_where_things_lie_is_not_told(tmp_path: Path) -> None:
    record, runs = full_session()
    places = {
        "model": f"{tmp_path}/base",
        "data": f"{tmp_path}/rows.jsonl",
        "output_dir": str(tmp_path / "o"),
    }
    configuration = {**places, "store": "postgresql://me:secret@host/shared", "seed": 3}
    page = written(tmp_path, dataclasses.replace(record, configuration=configuration), runs)
    assert str(tmp_path) not in page
    assert "secret" not in page
    for name in ("base", "rows.jsonl", "shared"):
        assert f"&#34;{name}&#34;" in page
    assert "org/base" in written(
        tmp_path, dataclasses.replace(record, configuration={"model": "org/base"}), runs
    )


def test_old_report_is_replaced(tmp_path: Path) -> None:
    record, runs = full_session()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("old")
    assert written(tmp_path, record, runs) != "old"


def test_one_trial_without_metric(tmp_path: Path) -> None:
    runs = make_runs(1)
    page = written(tmp_path, make_record(runs, winner="baseline", metric=False), runs)
    assert "The baseline won: the search found nothing better" in page
    assert "rouge" not in page
    assert "for one trial on a budget of 5m." in page


def test_all_trials_failed(tmp_path: Path) -> None:
    runs = [make_runs(1)[0], *failures()]
    page = written(tmp_path, make_record([runs[0], runs[3]], winner="zero_shot"), runs)
    assert "Zero-shot won" in page
    assert "; all failed." in page
    assert "not a number" in page
    assert "Diverged" in page


def test_no_runs_and_no_contenders(tmp_path: Path) -> None:
    record = dataclasses.replace(make_record(make_runs(1)), contenders=(), winner="", samples=(), warnings=())
    page = written(tmp_path, record, [])
    assert "No model could be delivered" in page
    assert "No trial reached a first measurement" in page


def test_a_thousand_trials_stay_small(tmp_path: Path) -> None:
    runs = make_runs(1000)
    page = written(tmp_path, make_record(runs), runs)
    assert len(page.encode()) < 8_000_000
    assert "150 of 1,000 curves are drawn" in page
    assert "At most 400 of 1,000 trials are drawn" in page


def test_a_forecast_that_could_not_be_made_has_its_reason_and_command_but_no_section(tmp_path: Path) -> None:
    record, runs = full_session()
    refused = DataForecast(0, reason="no trial reached the <b>end</b>", budget="10m")
    record = dataclasses.replace(record, forecast=refused, configuration={"output_dir": "/home/me/my out"})
    page = written(tmp_path, record, runs)
    assert "No trial reached the &lt;b&gt;end&lt;/b&gt;." in page
    assert "tunecast tune --resume --budget 10m --output-dir &#39;my out&#39;</pre>" in page
    assert 'id="figure-forecast"' not in page
    assert "<h2>What more data" not in page
    assert "would bring" not in written(tmp_path, dataclasses.replace(record, forecast=None), runs)


def test_samples_keep_their_lines(tmp_path: Path) -> None:
    record, runs = full_session()
    assert SAMPLES[2].before in written(tmp_path, record, runs)
