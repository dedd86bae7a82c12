"""`make stack` starts a Collector and a Prometheus, and Ctrl-C ends both."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from helpers.collector_parts import PROMETHEUS, ROOT, fetch

STACK = [sys.executable, "tools/stack.py", "--free-ports"]


@pytest.fixture
def stack():
    """A function that starts the tool; it is killed after a failed test."""
    started = []

    def start(*options, **settings):
        process = subprocess.Popen(
            [*STACK, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, **settings
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus: run `make collector`")
def test_ctrl_c_ends_all_processes(stack):
    """Both answer after the first line, and none does after Ctrl-C, which is no error."""
    process = stack("--jobs", "0")
    first = process.stdout.readline()
    ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", first)]
    assert len(ports) == 2
    assert "Ready" in fetch(ports[0], "/-/ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert fetch(ports[0], "/-/ready") == ""
    assert fetch(ports[1], "/") == ""


@pytest.mark.slow
def test_a_program_that_cannot_start_is_an_error_of_one_line(stack, monkeypatch):
    """The error has the last line of the program that has ended."""
    monkeypatch.setenv("OTELCOL_BIN", "false")
    monkeypatch.setenv("PROMETHEUS_BIN", "false")
    process = stack("--jobs", "0", stderr=subprocess.STDOUT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == "stack: collector has ended with 1: no output\n"
