from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from tunecast.progress import Progress, SessionStatus, TrainingStatus, TrialStatus
from tunecast.records import Outcome
from tunecast.report.live import RichProgress, SessionView, ranked, session_words, sparkline

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"

STATUS = SessionStatus(
    granted_seconds=300.0,
    used_seconds=112.0,
    budget_text="5m",
    fraction_used=112 / 300,
    trials=(
        TrialStatus("lora", 2e-4, 1.0, (4.1, 3.3, 2.91), Outcome.COMPLETED),
        TrialStatus("full", 3.1e-5, 0.25, (3.9, 3.2), running=True),
        TrialStatus("lora", 1.63e-3, 0.5, (3.7, 3.2, 2.79)),
        TrialStatus("full", 1e-3, 0.06, (3.7, math.inf), Outcome.DIVERGED),
        TrialStatus("ia3", None, 0.0, ()),
    ),
    incumbent=2,
    activity="advancing trial 2 (full)",
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(status: SessionStatus, width: int = 100, height: int = 30, encoding: str = "utf-8") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(SessionView(status, encoding))
    return capture.get().splitlines()


def plain() -> tuple[RichProgress, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return RichProgress(stream, clock=clock), stream, clock


def terminal(**options: object) -> tuple[RichProgress, io.StringIO]:
    stream = io.StringIO()
    settings = {"width": 80, "height": 24, "force_terminal": True, "_environ": {"TERM": "xterm"}} | options
    return RichProgress(console=Console(file=stream, **settings)), stream  # type: ignore[arg-type]


def test_it_is_a_progress() -> None:
    progress: Progress = plain()[0]
    assert progress


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((), ""),
        ((2.0,), "▁"),
        ((3.0, 2.0), "█▁"),
        ((3.0, math.nan, 2.0, math.inf), "█✗▁✗"),
        ((math.nan,), "✗"),
    ],
)
def test_sparkline(losses: tuple[float, ...], text: str) -> None:
    assert sparkline(losses) == text


def test_sparkline_in_ascii_and_cut() -> None:
    assert sparkline((3.0, 2.0, math.nan), unicode=False) == "#_x"
    assert sparkline((9.0, 3.0, 2.0), width=2) == "█▁"
    assert sparkline((9.0,), width=0) == ""


def test_view_shows_budget_trials_and_activity() -> None:
    lines = drawn(STATUS)
    assert "37% of 5m used, 3 min 8 s left" in lines[0]
    assert lines[2].split() == ["★", "lora", "1.63e-3", "50%", "2.790", "█▄▁"]
    assert lines[3].split()[:2] == ["▸", "full"]
    assert "diverged" in lines[-2]
    assert lines[-1].strip() == "advancing trial 2 (full)"


def test_the_best_loss_is_shown_not_the_last() -> None:
    worse = TrialStatus("lora", 1e-4, 1.0, (3.0, 2.0, 2.5))
    diverging = TrialStatus("full", 1e-5, 1.0, (2.2, math.nan))
    status = dataclasses.replace(STATUS, trials=(diverging, worse), incumbent=1)
    (row,) = [line for line in drawn(status) if "lora" in line]
    assert row.split()[4] == "2.000"
    assert "best 2.000 (lora, 1e-4)" in session_words(status)
    assert ranked(dataclasses.replace(status, incumbent=None)) == [1, 0]


def test_a_single_training_shows_its_steps_and_no_budget() -> None:
    training = TrainingStatus(1300, 2000, 2.345, 5120.4, 95.0)
    words = "step 1,300 of 2,000, loss 2.345, 5,120 tokens/s, 1 min 35 s left"
    status = dataclasses.replace(STATUS, trials=STATUS.trials[:1], incumbent=0, training=training)
    assert session_words(status) == f"{words}, best validation loss 2.910"
    assert words in drawn(status, width=80)[0]
    assert "budget" not in "".join(drawn(status))
    begun = dataclasses.replace(status, trials=(), training=TrainingStatus(0, 2000, None, None, 95.0))
    assert session_words(begun) == "step 0 of 2,000, 1 min 35 s left"


def test_order_is_incumbent_running_loss_failures() -> None:
    assert ranked(STATUS) == [2, 1, 0, 4, 3]


def test_budget_in_trials_shows_the_time_used() -> None:
    status = dataclasses.replace(STATUS, granted_seconds=None, budget_text="20-trials")
    assert "37% of 20-trials used in 1 min 52 s" in drawn(status)[0]


@pytest.mark.parametrize("width", [1, 2, 5, 10, 20, 43, 61, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 8, 24])
def test_view_fits_every_terminal(width: int, height: int) -> None:
    many = dataclasses.replace(STATUS, trials=STATUS.trials * 20, incumbent=None)
    for status in (STATUS, many, dataclasses.replace(STATUS, trials=(), incumbent=None)):
        lines = drawn(status, width, height)
        assert len(lines) <= max(4, height)
        assert all(len(line) <= width for line in lines)


def test_view_needs_no_unicode() -> None:
    text = "\n".join(drawn(STATUS, encoding="ascii"))
    table = [line for line in text.splitlines() if "lora" in line or "full" in line or "ia3" in line]
    assert all(line.isascii() for line in table)


def test_strange_figures_are_drawn_too() -> None:
    status = dataclasses.replace(STATUS, fraction_used=math.nan, used_seconds=math.inf, incumbent=99)
    assert drawn(status)
    assert drawn(dataclasses.replace(STATUS, fraction_used=7.0, used_seconds=900.0))


def test_plain_lines_one_a_stage_and_one_in_ten_seconds() -> None:
    progress, stream, clock = plain()
    progress.start("scoring", total=40, unit="batches")
    for _ in range(40):
        clock.now += 0.5
        progress.advance()
    progress.finish("loss 2.310")
    assert stream.getvalue().splitlines() == [
        "scoring",
        "scoring: 50% (20 of 40 batches), 10 s left",
        "scoring: 100% (40 of 40 batches)",
        "scoring: loss 2.310, 20 s",
    ]


def test_plain_lines_without_total_and_with_note() -> None:
    progress, stream, clock = plain()
    progress.start("loading")
    clock.now += 11
    progress.advance(3, "shard 3")
    progress.finish()
    assert stream.getvalue().splitlines()[1:] == ["loading: 3, shard 3", "loading: 11 s"]


def test_plain_session_lines_are_rare() -> None:
    progress, stream, clock = plain()
    for _ in range(30):
        progress.show(STATUS)
        clock.now += 1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "budget 37% of 5m used, 3 min 8 s left, 5 trials, best 2.790 (lora, 1.63e-3), "
        "advancing trial 2 (full)"
    )


def test_a_single_trial_is_no_plural() -> None:
    alone = dataclasses.replace(STATUS, trials=STATUS.trials[:1], incumbent=None)
    assert "left, 1 trial, " in session_words(alone)


def test_advance_and_finish_without_a_stage_say_nothing() -> None:
    progress, stream, _ = plain()
    progress.advance()
    progress.finish()
    progress.close()
    progress.close()
    assert stream.getvalue() == ""


def test_terminal_gives_the_cursor_back() -> None:
    progress, stream = terminal()
    with contextlib.suppress(KeyboardInterrupt), progress:
        progress.start("tuning", total=10)
        progress.show(STATUS)
        progress.log("a line that stays")
        raise KeyboardInterrupt
    text = stream.getvalue()
    assert "a line that stays" in text
    assert "lora" in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_terminal_shows_stage_and_time_left() -> None:
    progress, stream = terminal()
    with progress:
        progress.start("scoring", total=4, unit="batches")
        progress.advance(2)
        time.sleep(0.6)
        progress.finish("done")
    assert "50% (2 of 4 batches)" in stream.getvalue()
    assert "scoring: done" in stream.getvalue()


def test_dumb_terminal_gets_lines() -> None:
    progress, stream = terminal(_environ={"TERM": "dumb"})
    with progress:
        progress.start("scoring")
        progress.finish()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("scoring\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("force_terminal", [True, False])
def test_every_encoding(encoding: str, force_terminal: bool) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    console = Console(file=stream, width=90, height=20, force_terminal=force_terminal)
    with RichProgress(console=console) as progress:
        progress.start("Übung → 日本", total=3)
        progress.show(dataclasses.replace(STATUS, activity="größer ✓ 日本"))
        progress.log("čeština 🎉")
        progress.finish()
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert "lora" in text
    assert not progress._broken


class Exploding(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError("no space left on device")


@pytest.mark.parametrize("force_terminal", [True, False])
def test_a_stream_that_fails_is_left_alone(force_terminal: bool) -> None:
    console = Console(file=Exploding(), force_terminal=force_terminal)
    with RichProgress(console=console) as progress:
        progress.start("x", total=2)
        progress.advance()
        progress.show(STATUS)
        progress.log("y")
        progress.finish()


def run_child(code: str, **options: object) -> subprocess.Popen[bytes]:
    script = (
        "import signal, sys, time\nfrom tunecast.report.live import RichProgress\n"
        "from tunecast.progress import *\n"
        # Where the tests run in the background, a child would start with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "trial = TrialStatus('lora', 1e-4, 0.5, (3.0, 2.0))\n"
        "status = SessionStatus(9.0, 1.0, '9s', 0.1, (trial,), 0, 'busy')\n"
    )
    return subprocess.Popen([sys.executable, "-c", script + code], **options)  # type: ignore[call-overload,no-any-return]


def read_until(handle: int, wanted: Callable[[bytes], bool], seconds: float = 30) -> bytes:
    text, deadline = b"", time.monotonic() + seconds
    while not wanted(text) and time.monotonic() < deadline:
        if select.select([handle], [], [], 0.2)[0]:
            try:
                received = os.read(handle, 65_536)
            except OSError:  # A pseudo-terminal says so when its other end closes.
                break
            if not received:
                break
            text += received
    return text


def test_ctrl_c_on_a_real_terminal_restores_the_cursor_and_leaves_stdout_alone() -> None:
    ours, theirs = pty.openpty()
    code = (
        "with RichProgress() as progress:\n    progress.start('tuning', 10)\n    progress.show(status)\n"
        "    print('{}', flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    child = run_child(code, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    assert child.stdout
    assert child.stdout.readline() == b"{}\n"
    seen = read_until(ours, lambda text: b"lora" in text and b"tuning" in text)
    child.send_signal(signal.SIGINT)
    seen += read_until(ours, lambda _: False)
    assert child.wait(30) != 0
    assert child.stdout.read() == b""
    text = seen.decode()
    assert "lora" in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    child.stdout.close()
    os.close(ours)


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    reading, writing = os.pipe()
    code = (
        "from rich.console import Console\nimport tunecast.report.live as module\n"
        "console = module.QuietConsole(file=sys.stderr, force_terminal=True, width=80)\n"
        "with RichProgress(console=console) as progress:\n"
        "    sys.stdin.readline()\n"
        "    for _ in range(5):\n"
        "        progress.start('x', 3)\n        progress.show(status)\n        progress.log('y')\n"
        "        time.sleep(0.3)\n        progress.finish()\n"
        "print('the run went on', flush=True)\n"
    )
    child = run_child(code, stderr=writing, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    out, _ = child.communicate(b"\n", timeout=60)
    assert out == b"the run went on\n"


def test_help_does_not_load_the_display() -> None:
    code = "import tunecast.cli, sys; print('tunecast.report.live' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_parts_of_a_stage_are_named_as_they_begin() -> None:
    progress, stream, _ = plain()
    progress.start("reading")
    progress.advance(0, "converting a.gguf, once")
    progress.advance(1, "not worth a line")
    progress.finish()
    assert stream.getvalue().splitlines() == ["reading", "reading: converting a.gguf, once", "reading: 0.0 s"]


def test_the_hint_comes_once_when_a_session_has_begun() -> None:
    stream = io.StringIO()
    progress = RichProgress(stream, hint="Watch it")
    progress.start("Reading data and model")
    assert "Watch it" not in stream.getvalue()
    for _ in range(2):
        progress.show(STATUS)
    assert stream.getvalue().count("Watch it\n") == 1
