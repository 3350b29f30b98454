"""A dashboard that serves over a real port, and a browser that looks at it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from report.browser import Browser, Page, chromium, needed_chromium
from sessions import command


@dataclass
class Served:
    """A dashboard in a process of its own, as its user starts it."""

    address: str
    token: str
    process: subprocess.Popen[str]

    @property
    def origin(self) -> str:
        return self.address

    def client(self, **more: Any) -> httpx.Client:
        """A client with the cookie that a browser has after the first page."""
        client = httpx.Client(base_url=self.address, follow_redirects=False, trust_env=False, **more)
        assert client.get("/", params={"token": self.token}).status_code == 303
        return client

    def open(self, page: Page, path: str) -> None:
        """Open a page with the token, which then is in a cookie."""
        mark = "&" if "?" in path else "?"
        page.call("Page.navigate", url=f"{self.address}{path}{mark}token={self.token}")
        page.wait_for("document.readyState === 'complete' && location.search.indexOf('token=') < 0")


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    process = subprocess.Popen(
        command("dashboard", *arguments, "--port", "0"), stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Dashboard: (http://127\.0\.0\.1:\d+)/\?token=(\S+)\n", line)
        assert found, line
        yield Served(found[1], found[2], process)
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(needed_chromium(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened
