"""How a classifier is reported: its measures beside those of its rivals, and what it takes for what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from report.sample_session import full_session, metric_session
from tunecast.cli.session_result import as_result
from tunecast.records import Run
from tunecast.report.card import model_card
from tunecast.report.classification import LABELS_SHOWN, classification_line, confusions, measures_table
from tunecast.report.page import write_report
from tunecast.results import Classification, SampleOutput, SessionRecord
from tunecast.session.classification import classify

LABELS = ("no match", "match")


def outputs(pairs: dict[tuple[str, str], int], confidence: float | None = 0.9) -> list[SampleOutput]:
    return [
        SampleOutput("", true, "", chosen, confidence)
        for (true, chosen), count in pairs.items()
        for _ in range(count)
    ]


def classified(wrong: int = 2) -> Classification:
    counts = {("no match", "no match"): 80, ("match", "match"): 20 - wrong, ("match", "no match"): wrong}
    found = classify(outputs(counts), LABELS, "match")
    assert found is not None
    return found


def session() -> tuple[SessionRecord, list[Run]]:
    """A session that accuracy decided."""
    record, runs = metric_session()
    contenders = tuple(
        dataclasses.replace(one, classification=classified(wrong))
        for one, wrong in zip(record.contenders, (15, 9, 2), strict=True)
    )
    answers = outputs({("no match", "no match"): 80, ("match", "no match"): 20}, None)
    majority = dataclasses.replace(record.constant_answers[0], classification=classify(answers, LABELS))
    return dataclasses.replace(record, contenders=contenders, constant_answers=(majority,)), runs


def test_all_measures_of_labels_that_were_chosen() -> None:
    found = classified()
    assert found.confusion == ((80, 0), (2, 18), (0, 0))
    assert list(found.measures) == ["accuracy", "balanced_accuracy", "macro_f1", "matthews", "f1=match"]
    assert found.measures["accuracy"] == 0.98
    assert found.measures["f1=match"] == 2 * 18 / (2 * 18 + 2)
    assert found.calibration_error is not None
    assert round(found.calibration_error, 3) == 0.08
    assert classify([], LABELS) is None


def test_every_row_has_its_measures_and_a_constant_answer_no_calibration() -> None:
    record, _ = session()
    table = measures_table(record)
    assert table is not None
    assert [row[0] for row in table.rows] == ["zero-shot", "LoRA, 10 steps", "incumbent", "majority answer"]
    assert table.header[1:] == (
        *("accuracy", "balanced accuracy", "macro-F1", "Matthews", "F1 of “match”", "calibration error"),
    )
    assert table.winner == 2
    assert table.rows[2][1] == "0.980"
    assert table.rows[3][1] == "0.800"
    assert table.rows[3][-1] == "—"
    assert measures_table(full_session()[0]) is None


def test_rare_labels_share_a_row_and_a_column() -> None:
    labels = tuple(f"label {number}" for number in range(20))
    answers = {(label, label): 20 - place for place, label in enumerate(labels)}
    found = classify(outputs({**answers, ("label 1", "label 19"): 4, ("new", "label 0"): 3}), labels)
    assert found is not None
    matrix = confusions(found)
    assert matrix.chosen == (*labels[:LABELS_SHOWN], "all others")
    assert [row.label for row in matrix.rows] == [*matrix.chosen, "not in training"]
    assert sum(sum(row.counts) for row in matrix.rows) == sum(answers.values()) + 7
    second, rest, unseen = matrix.rows[1], matrix.rows[-2], matrix.rows[-1]
    assert (second.counts[1], second.counts[-1]) == (19, 4)
    assert (rest.counts[-1], rest.right) == (
        sum(20 - place for place in range(LABELS_SHOWN, 20)),
        LABELS_SHOWN,
    )
    assert (unseen.counts[0], unseen.right) == (3, None)
    assert unseen.shares[0] == 1.0


def test_report_and_card_show_measures_and_confusions(tmp_path: Path) -> None:
    record, runs = session()
    write_report(record, runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("<h2>Classification</h2>", "F1 of “match”", "What the winner takes for what"):
        assert text in page
    assert 'class="number right" style="--share: 90%" data-title="match"><span>18<small>90%' in page
    run = next(run for run in runs if run.id == record.contender("incumbent").run)
    card = model_card(record, run, base_model="org/base")
    assert "| match | 2 | 18 |" in card
    by_match = dataclasses.replace(record, objective="f1=match")
    assert "metrics:\n- f1\n" in model_card(by_match, run, base_model="org/base")
    assert "| incumbent | 0.980 |" in card


def test_sessions_without_labels_have_no_such_section(tmp_path: Path) -> None:
    record, runs = full_session()
    write_report(record, runs, tmp_path / "report.html")
    assert "<h2>Classification</h2>" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert as_result(record)["classification"] == {}


def test_json_and_one_line_have_all_measures() -> None:
    record, _ = session()
    found = as_result(record)["classification"]["incumbent"]
    assert found["measures"]["accuracy"] == 0.98
    assert found["confusion"] == [[80, 0], [2, 18], [0, 0]]
    assert classification_line(classified()).startswith(
        "accuracy 0.980, balanced accuracy 0.950, macro-F1 0.9"
    )
