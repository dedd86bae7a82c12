"""`deltawitness info` and `--version` describe the installation."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from deltawitness.semconv import WITNESS_VERSION, Env
from helpers.ledger_commands import invoke, json_of

PARTS = [
    *("versions", "platform", "instrumentation", "seams", "settings", "variables", "exporters"),
    *("extras", "ledger"),
]


def test_the_version_line_has_the_engines():
    """The first word is the version of deltawitness."""
    line = invoke("--version").stdout
    assert line.split()[0] == WITNESS_VERSION
    for name in ("deltalake", "datafusion", "opentelemetry-api", "pyarrow"):
        assert f"{name} {version(name)}" in line
    assert line.count("\n") == 1


def test_the_page_has_every_part(tmp_path, monkeypatch):
    """A heading for each part, and nothing of the ledger's path."""
    monkeypatch.setenv(Env.CACHE_ROOT, str(tmp_path))
    done = invoke("info")
    assert done.exit_code == 0
    headings = [line.rstrip(":") for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert headings == PARTS
    assert str(tmp_path) not in done.stdout
    assert len(done.stdout.splitlines()) < 70


@pytest.mark.slow
def test_the_json_has_every_part(tmp_path):
    """The keys are the fields of `InfoResult`; a path is shown with `--paths` only."""
    found = json_of("info", "--root", tmp_path)
    assert list(found) == [*PARTS, "problems"]
    assert found["ledger"]["root"] is None
    assert json_of("info", "--root", tmp_path, "--paths")["ledger"]["root"] == str(tmp_path)


def test_an_invalid_setting_does_not_end_the_command(monkeypatch):
    """The page says what is wrong, and the exit code is 0."""
    monkeypatch.setenv(Env.QUEUE_SIZE, "many")
    done = invoke("info")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "DELTAWITNESS_QUEUE_SIZE expected an integer from 1 to 10000000 (env)" in lines
