"""New processes in no time: children of a server that has imported everything and used nothing.

Each has engine threads, locks and files of its own, as a program that was just started has.
"""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["deltawitness.instrumentation", "deltawitness.ledger.ledger", "deltawitness.ledger.drain"]
)


def started(target, *arguments):
    """Start a process with the sending end of a pipe as its last argument; return both."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=target, args=(*arguments, sending))
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
