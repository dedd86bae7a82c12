"""Operations on an object store, and the requests of each: for tests of upper bounds and for the docs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from urllib.parse import unquote, urlsplit


def kind_of(line):
    """Return the method and the kind of key of a request line, such as `GET commit`."""
    method, target, _ = line.split()
    parts = urlsplit(target)
    key, query = unquote(parts.path), unquote(parts.query)
    if "list-type" in query:
        return "LIST log" if "_delta_log" in query else "LIST"
    if key.endswith("_last_checkpoint"):
        return f"{method} checkpoint pointer"
    if "/_delta_log/" in key:
        return f"{method} commit"
    return f"{method} plan" if "/_plans/" in key else f"{method} data"


def counted(lines):
    """Return the number of requests of each kind."""
    return Counter(map(kind_of, lines))


def without_data(lines):
    """Return the number of requests other than reads of data files, which a bare read makes as well."""
    return sum(number for kind, number in counted(lines).items() if kind != "GET data")


def command_line(arguments, environment):
    """Run `deltawitness` in a new process; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "deltawitness", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
