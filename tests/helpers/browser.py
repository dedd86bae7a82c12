"""Chromium without a screen, driven by Playwright from a virtual environment in `.cache`.

`make browser` runs this module: it makes the environment, and downloads Chromium if the system has none.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from helpers.places import PROGRAMS, REPOSITORY

REQUIRES = ("axe-playwright-python==0.1.8", "playwright==1.65.2")

FOLDER = REPOSITORY / ".cache/browser"
DOWNLOADED = FOLDER / "downloaded"
UV = str(Path(sys.executable).with_name("uv"))
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "chrome-linux*/chrome",
    "chrome-mac*/Chromium.app/Contents/MacOS/Chromium",
    "chrome-win*/chrome.exe",
)

LIMIT_S = 300.0
"""How long a program with the browser may take, in seconds."""


@cache
def chromium() -> str | None:
    """Return the path of Chromium: that of the system, else the downloaded one; None if there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is not None:
        return found
    downloaded = (path for place in PLACES for path in DOWNLOADED.glob(f"chromium-*/{place}"))
    return next((str(path) for path in downloaded), None)


@cache
def missing() -> str | None:
    """Return what the tests need and this system does not have; None if nothing is missing."""
    if chromium() is None:
        return "there is no Chromium: run `make browser`, or install the Debian package chromium"
    if not _is_ready():
        return f"there is no environment with Playwright in {FOLDER.name}: run `make browser`"
    return None


def run(program: str, *arguments: str) -> Any:
    """Run a program of `tests/programs` with Playwright, and return the JSON that it prints.

    Args:
        program: name of the program; its first argument is the path of Chromium.
        *arguments: its other arguments.
    """
    line = [str(FOLDER / "bin/python"), "-I", str(PROGRAMS / program), str(chromium()), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _digest() -> str:
    return hashlib.sha256("\n".join([*REQUIRES, sys.version]).encode()).hexdigest()


def _is_ready() -> bool:
    ready = FOLDER / "ready"
    return ready.is_file() and ready.read_text() == _digest()


def install() -> None:
    """Make the environment, and download Chromium if there is none."""
    if not _is_ready():
        _execute(UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER))
        python = str(FOLDER / "bin/python")
        _execute(UV, "pip", "install", "--quiet", "--python", python, *REQUIRES)
        (FOLDER / "ready").write_text(_digest())
    if chromium() is None:
        environment = f"PLAYWRIGHT_BROWSERS_PATH={DOWNLOADED}"
        _execute("env", environment, str(FOLDER / "bin/playwright"), "install", "chromium")


def _execute(*line: str) -> None:
    subprocess.run(line, check=True, timeout=2 * LIMIT_S)


if __name__ == "__main__":
    install()
