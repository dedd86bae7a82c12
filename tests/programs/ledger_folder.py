"""Processes that fold shards, are killed in a fold, or write to shards meanwhile."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from pathlib import Path

from deltawitness.ledger.drain import fold as module
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.drain.maintenance import optimize
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot
from helpers.ledger_parts import operation_row, sealed_rows, spool_in


def fold_and_die(root, options, point, results):
    """Fold, and kill this process before or after a step of the fold."""
    step = getattr(module, point.removeprefix("before").removeprefix("after"))

    def killed(*arguments, **more):
        done = None if point.startswith("before") else step(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(module, point.removeprefix("before").removeprefix("after"), killed)
    module.fold(LedgerRoot(root, options))
    results.send("not killed")


def fold_at_barrier(root, options, barrier, results):
    """Fold, concurrently with others, and send the results."""
    barrier.wait(60)
    results.send([asdict(done) for done in module.fold(LedgerRoot(root, options))])


def fold_until(root, options, done, results):
    """Fold until a file exists, and send the number of folded rows and the errors."""
    rows, errors = 0, []
    is_last = False
    while not is_last:
        is_last = Path(done).exists()
        for result in module.fold(LedgerRoot(root, options)):
            rows += result.rows
            errors += [] if result.error is None else [result.error]
    results.send((rows, errors))


def optimize_until(root, options, done, results):
    """Compact the inventory until a file exists, and send how often."""
    count, is_last = 0, False
    while not is_last:
        is_last = Path(done).exists()
        count += optimize(LedgerRoot(root, options), INVENTORY).is_done
    results.send(count)


def append_rows(root, options, shard, name, count, results):
    """Drain one row at a time from a spool of this process, and send the write ids."""
    place = LedgerRoot(root, options).of_shard(shard)
    spool = spool_in(Path(root if options is None else name).parent / f"spools-{name}", shard=shard)
    ids = [f"{name}-{number}" for number in range(count)]
    for write_id in ids:
        Drain(place, tail=1).drain_segments(sealed_rows(spool, operation_row(write_id)))
        spool.delete(spool.sealed())
    results.send(ids)
