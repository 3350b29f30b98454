"""What a session does right now, in a file that others read; it never makes a session fail."""

from __future__ import annotations

import fcntl
from pathlib import Path

from tunecast.progress import Choice, SessionStatus, Silent, TrialStatus
from tunecast.records import Outcome, Pipeline
from tunecast.session.folder import LIVE_FILE, LOCK_FILE
from tunecast.session.live import LINES_KEPT, LiveProgress, is_running, read_live

TRIAL = TrialStatus("lora", 2e-4, 0.5, (3.0, float("nan")), Outcome.PAUSED, True, "run", 8, 16, 2.5, 1000.0)
CHOICE = Choice("run", Pipeline("lora", {"lora_r": 16}), 1.0, "It leads.")
STATUS = SessionStatus(60.0, 12.0, "60s", 0.2, (TRIAL,), 0, "Searching", choices=(CHOICE,), ahead=CHOICE)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shown(Silent):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def log(self, text: str) -> None:
        self.calls.append(text)

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        self.calls.append(f"start {stage}")

    def finish(self, note: str = "") -> None:
        self.calls.append(f"finish {note}")


def test_everything_is_passed_on_and_kept(tmp_path: Path) -> None:
    shown = Shown()
    progress = LiveProgress(shown, tmp_path, clock=Clock())
    progress.start("Loading", 10.0, "files")
    live = read_live(tmp_path)
    assert live is not None
    assert live.stage is not None
    assert (live.stage.name, live.stage.total, live.stage.unit) == ("Loading", 10.0, "files")
    progress.finish("2 s")
    progress.log("a line")
    progress.show(STATUS)
    live = read_live(tmp_path)
    assert live is not None
    assert live.stage is None
    assert [line.text for line in live.log] == ["Loading: 2 s", "a line"]
    assert live.status is not None
    assert live.status.choices == (CHOICE,)
    assert live.status.trials[0].run == "run"
    assert shown.calls == ["start Loading", "finish 2 s", "a line"]


def test_it_is_written_at_most_once_a_second_unless_the_choice_changes(tmp_path: Path) -> None:
    clock = Clock()
    progress = LiveProgress(Silent(), tmp_path, clock=clock)

    def used() -> float | None:
        live = read_live(tmp_path)
        return live.status.used_seconds if live and live.status else None

    progress.show(STATUS)
    later = SessionStatus(60.0, 13.0, "60s", 0.2, (TRIAL,), 0, "Searching", choices=(CHOICE,))
    clock.now += 0.5
    progress.show(later)
    assert used() == 12.0
    clock.now += 0.6
    progress.show(later)
    assert used() == 13.0
    progress.show(SessionStatus(60.0, 14.0, "60s", 0.2, (TRIAL,), 0, "Finishing", choices=()))
    assert used() == 14.0


def test_the_log_goes_on_in_the_next_process_and_stays_short(tmp_path: Path) -> None:
    LiveProgress(Silent(), tmp_path).log("before the kill")
    again = LiveProgress(Silent(), tmp_path)
    again.log("after it")
    live = read_live(tmp_path)
    assert live is not None
    assert [line.text for line in live.log] == ["before the kill", "after it"]
    for number in range(LINES_KEPT):
        again.log(f"{number}" + "x" * 5000)
    live = read_live(tmp_path)
    assert live is not None
    assert len(live.log) == LINES_KEPT
    assert live.log[0].text.startswith("0x")
    assert max(len(line.text) for line in live.log) == 2000


def test_a_full_disk_ends_no_session(tmp_path: Path) -> None:
    progress = LiveProgress(Silent(), tmp_path / "missing")
    progress.log("a line")
    progress.show(STATUS)
    assert not (tmp_path / "missing").exists()


def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path) -> None:
    assert read_live(tmp_path) is None
    for content in ("", "[]", '{"log": 3}', '{"status": {}}'):
        (tmp_path / LIVE_FILE).write_text(content)
        assert read_live(tmp_path) is None


def test_a_session_runs_while_its_lock_is_held(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with (tmp_path / LOCK_FILE).open("w") as lock:
        assert not is_running(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
