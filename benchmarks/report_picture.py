"""Takes the pictures of a report and of the dashboard that the documentation shows, in a headless Chromium.

    python benchmarks/report_picture.py out/demo-0/report.html docs/images/report.png
    python benchmarks/report_picture.py --height 1500 \\
        'http://127.0.0.1:8765/session?folder=demo-0&token=...' docs/images/dashboard.png

`make demo` makes the report, and `tunecast dashboard out/demo-0` prints the token. A picture is the top of a
page, in the light colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
DRAWN = "--virtual-time-budget=10000"
FOLLOWING = "--timeout=10000"
"""A page that follows a session never stops loading, so that its virtual time stands still."""
SECONDS = 120


def picture(page: str, file: Path, width: int, height: int) -> None:
    """Write a PNG of the top of a page, ``width`` by ``height`` pixels."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"None of {', '.join(BROWSERS)} is installed.")
    served = page.startswith("http://")
    if not served and not Path(page).is_file():
        sys.exit(f"There is no {page}; make demo writes one.")
    address, wait = (page, FOLLOWING) if served else (Path(page).resolve().as_uri(), DRAWN)
    with tempfile.TemporaryDirectory() as profile:
        taken = Path(profile) / "picture.png"
        where = (f"--user-data-dir={profile}", f"--screenshot={taken}", f"--window-size={width},{height}")
        command = (browser, *FLAGS, wait, *where, address)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if not taken.is_file():
            sys.exit(f"{browser} took no picture: {done.stderr[-500:]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(taken, file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", help="a file, or an address of http://")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1040)
    parser.add_argument("--height", type=int, default=1240)
    given = parser.parse_args()
    picture(given.page, given.picture, given.width, given.height)


if __name__ == "__main__":
    main()
