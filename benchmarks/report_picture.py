"""Takes the picture of a report that the README shows, in a headless Chromium.

    python benchmarks/report_picture.py out/demo-0/report.html docs/images/report.png

`make demo` makes the report. The picture is its top, in the light colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000")
SECONDS = 120


def picture(report: Path, file: Path, width: int, height: int) -> None:
    """Write a PNG of the top of a page, ``width`` by ``height`` pixels."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"None of {', '.join(BROWSERS)} is installed.")
    if not report.is_file():
        sys.exit(f"There is no {report}; make demo writes one.")
    with tempfile.TemporaryDirectory() as profile:
        taken = Path(profile) / "picture.png"
        where = (f"--user-data-dir={profile}", f"--screenshot={taken}", f"--window-size={width},{height}")
        command = (browser, *FLAGS, *where, report.resolve().as_uri())
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if not taken.is_file():
            sys.exit(f"{browser} took no picture: {done.stderr[-500:]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(taken, file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1040)
    parser.add_argument("--height", type=int, default=1240)
    given = parser.parse_args()
    picture(given.report, given.picture, given.width, given.height)


if __name__ == "__main__":
    main()
