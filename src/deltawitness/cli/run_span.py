"""Export the span of a program's run after the program has ended, with its exit code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from deltawitness.activation import asks_for_export
from deltawitness.cli.console import print_error
from deltawitness.ids_and_clock import now_ns
from deltawitness.redaction import message_for_ledger
from deltawitness.semconv import Env, OtelEnv
from deltawitness.settings import LedgerMessages
from deltawitness.telemetry.run_span_file import offer_export, read_run_span, run_span_path

__all__ = ["RunSpanExport", "offer_run_span_export"]

EXPORT_TIMEOUT = 15.0
"""Maximum time in seconds of the exporting process, including the start of its interpreter."""

_OTHER_SIGNALS_OFF = {OtelEnv.METRICS_EXPORTER.value: "none", OtelEnv.LOGS_EXPORTER.value: "none"}


def offer_run_span_export(lock: str, environ: Mapping[str, str]) -> None:
    """Offer the program that the command exports its run span, if the environment sets a trace exporter.

    Args:
        lock: path of the lock that the command holds while it waits.
        environ: the environment of the command.
    """
    exporter = environ.get(OtelEnv.TRACES_EXPORTER, "").strip().lower()
    if exporter != "none" and asks_for_export(dict(environ)):
        with suppress(OSError):  # then the program ends its span itself
            offer_export(lock, environ)


class RunSpanExport:
    """An export of the run span in a separate process.

    No process is started if the program wrote no run span: it did not load this package, exports no
    traces, or its trace is not sampled.

    Args:
        lock: path of the lock that the command holds.
        exit_code: the program's exit code; -N when signal N ended it.

    Attributes:
        is_exported: whether the exporter has exported the span; final after :meth:`wait`.
        problem: why the span was not exported; None if it was, or if there was none to export.
    """

    def __init__(self, lock: str, exit_code: int) -> None:
        self.is_exported: bool = False
        self.problem: str | None = None
        path = run_span_path(lock)
        document = read_run_span(path)
        self._process: subprocess.Popen[str] | None = None
        if document is None:
            return
        module = "deltawitness.telemetry.run_span_export"
        command = [document["python"], "-P", "-m", module, path, str(exit_code), str(now_ns())]
        environment = {**os.environ, **_OTHER_SIGNALS_OFF}
        environment.pop(Env.ACTIVATE, None)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this package's code, in the program's interpreter
                command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,  # so that the terminal's interrupts do not end it
            )
        except OSError as error:
            self._fail(str(error))

    def wait(self) -> None:
        """Wait up to `EXPORT_TIMEOUT` for the export; print one line if it fails."""
        if self._process is None:
            return
        try:
            _, output = self._process.communicate(timeout=EXPORT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self._fail(f"no answer within {EXPORT_TIMEOUT:g} s")
            return
        if self._process.returncode != 0:
            lines = output.splitlines()
            self._fail(lines[-1] if lines else f"exit code {self._process.returncode}")
        else:
            self.is_exported = True

    def _fail(self, reason: str) -> None:
        self.problem = message_for_ledger(reason, LedgerMessages.SAFE)
        print_error(f"the span of the run was not exported: {self.problem}")
