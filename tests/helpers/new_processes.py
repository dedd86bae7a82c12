"""New processes that start quickly: children of a fork server that has imported the modules.

Each has separate engine threads, locks and files, as a newly started program has.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from pathlib import Path

from deltawitness import cli

COMMANDS = sorted(
    f"deltawitness.cli.{file.stem}" for file in Path(cli.__file__).parent.glob("[!_]*.py")
)
"""The modules of the command line, which imports those of the command that it runs."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "deltawitness.instrumentation",
        "deltawitness.ledger.ledger",
        "deltawitness.ledger.drain.drain",
        *COMMANDS,
        "deltawitness.report.tables",
        "deltalake",
        "csv",
        "email.message",
        "importlib.metadata",
        "rich.progress",
        "zipfile",
        "pydantic.fields",
        "pydantic.json_schema",
        "pydantic.type_adapter",
    ]
)

LIFE_S = 300
"""Seconds after which a process is killed: without it some would write forever after an interrupted test."""


def run_bounded(target, arguments):
    """Call a function in a process that an alarm kills after LIFE_S."""
    gc.freeze()  # the modules of the fork server are no garbage
    signal.alarm(LIFE_S)
    target(*arguments)


def start_process(target, *arguments):
    """Start a process with the sending end of a pipe as its last argument; return both."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=run_bounded, args=(target, (*arguments, sending)))
    process.start()
    sending.close()
    return process, receiving


def run_in_processes(target, calls):
    """Run calls in concurrent processes; return the result that each sent, in the order of the calls."""
    running = [start_process(target, *arguments) for arguments in calls]
    results = [receiving.recv() for _, receiving in running]
    for process, _ in running:
        process.join(60)
        assert process.exitcode == 0
    return results
