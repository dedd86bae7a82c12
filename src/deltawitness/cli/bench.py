"""`deltawitness bench`: measure the overhead of observing a write on the user's storage."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltawitness.cli.console import (
    MISUSED,
    CommandError,
    JsonOption,
    console,
    exit_on_error,
    print_json,
)
from deltawitness.extras import is_installed
from deltawitness.locations import strip_credentials
from deltawitness.report.bench import print_bench
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.bench.measure import BenchLine

__all__ = ["bench_command"]

MAX_ROUNDS = 100_000


def bench_command(
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="LOCATION",
            help="Folder or URI for temporary tables, which are removed at the end;"
            " by default the system's folder for temporary files.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", help="Writes of each variant in each case.")
    ] = 50,
    case: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only the cases whose name contains this text."),
    ] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Measure what observing a write costs: bare, observed and hand-written writes, interleaved.

    A second bare variant is the control. The writes are not recorded in a ledger.

    DELTAWITNESS_STORAGE_OPTIONS has the options of an object store, in
    addition to the variables that delta-rs reads itself (AWS_...).
    """
    with exit_on_error("the benchmark failed"):
        settings = Settings.from_env()
        place, lines = _measure(uri, rounds, case, settings.storage_options)
    from deltawitness.bench.measure import machine  # noqa: PLC0415 - heavy

    if as_json:
        parameters = {"uri": place, "rounds": rounds, "machine": machine()}
        print_json({**parameters, "results": [asdict(line) for line in lines]})
    else:
        print_bench(console(sys.stdout), lines, machine())


def _measure(
    uri: str | None, rounds: int, text: str | None, storage_options: dict[str, str] | None
) -> tuple[str, list[BenchLine]]:
    from deltawitness.bench.measure import CASES, run_case, summary  # noqa: PLC0415 - heavy
    from deltawitness.bench.storage import check_location, temporary_folder  # noqa: PLC0415 - heavy

    if not 1 <= rounds <= MAX_ROUNDS:
        msg = f"--rounds: expected an integer from 1 to {MAX_ROUNDS}"
        raise CommandError(msg, MISUSED)
    cases = [case for case in CASES if text is None or text in case.name]
    if not cases:
        msg = f"--case: expected a part of one of: {'; '.join(case.name for case in CASES)}"
        raise CommandError(msg, MISUSED)
    if not is_installed("opentelemetry.sdk"):
        msg = "bench needs the OpenTelemetry SDK: pip install 'deltawitness[otel]'"
        raise CommandError(msg, MISUSED)
    base = check_location(uri, storage_options)
    options = storage_options if "://" in base else None
    lines: list[BenchLine] = []
    with _exit_on_sigterm(), temporary_folder(base, options) as place:
        for number, case in enumerate(cases):
            _show_progress(f"case {number + 1} of {len(cases)}: {case.name}")
            times = run_case(case, rounds, f"{place}/{number}", storage_options=options)
            lines += summary(case, times)
    return strip_credentials(base), lines


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"deltawitness: {text}\n")


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turn a SIGTERM in the block into `typer.Exit`, so that the temporary tables are removed."""

    def leave(number: int, _: FrameType | None) -> Any:
        raise typer.Exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
