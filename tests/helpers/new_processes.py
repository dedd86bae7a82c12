"""New processes in no time: children of a server that has imported everything and used nothing.

Each has engine threads, locks and files of its own, as a program that was just started has.
"""

from __future__ import annotations

import multiprocessing
import signal

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "deltawitness.instrumentation",
        "deltawitness.ledger.ledger",
        "deltawitness.ledger.drain.drain",
    ]
)

LIFE_S = 3600
"""Seconds after which a process is killed: some write until then if the test is interrupted."""


def run_bounded(target, arguments):
    """Call a function in a process that an alarm kills after LIFE_S."""
    signal.alarm(LIFE_S)
    target(*arguments)


def started(target, *arguments):
    """Start a process with the sending end of a pipe as its last argument; return both."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=run_bounded, args=(target, (*arguments, sending)))
    process.start()
    sending.close()
    return process, receiving


def results_of(target, calls):
    """Return what processes that run at the same time have sent, in the order of their calls."""
    running = [started(target, *arguments) for arguments in calls]
    results = [receiving.recv() for _, receiving in running]
    for process, _ in running:
        process.join(60)
        assert process.exitcode == 0
    return results
