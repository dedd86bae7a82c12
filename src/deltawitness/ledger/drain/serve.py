"""Drain all spools of a host until a signal stops it: the receiving side of the mode `forward`.

The spool of each process is the durable queue. A process in this mode commits nothing; its records are
safe with the line in its spool, and wait there while no server runs.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from deltawitness.internal_errors import report
from deltawitness.ledger.drain.drain import Drain, DrainResult
from deltawitness.ledger.drain.drain_thread import HOST_TIMEOUT, LONGEST_PAUSE
from deltawitness.ledger.drain.fold import fold
from deltawitness.ledger.drain.maintenance import maintain
from deltawitness.ledger.spool.host import LockState, drain_lock
from deltawitness.ledger.tables.schema import LedgerRoot

__all__ = ["ServeResult", "serve"]


@dataclass(slots=True)
class ServeResult:
    """What a server did until it was stopped.

    Attributes:
        drained: sums over its drains.
        drains: number of drains that committed rows.
        folded: rows that its folds moved to the main tables.
        failures: drains and folds that failed; their rows stay where they are.
    """

    drained: DrainResult
    drains: int = 0
    folded: int = 0
    failures: int = 0


def serve(  # noqa: PLR0913 - keyword-only options
    root: LedgerRoot,
    spools: Path,
    stop: threading.Event,
    *,
    interval: float,
    tail: int,
    fold_interval: float | None = None,
    maintenance: bool = True,
) -> ServeResult:
    """Drain the spools of all processes on this host at intervals, until `stop` is set.

    Errors are reported, and the next drain tries again. After `stop` it drains once more.

    Args:
        root: location of the ledger.
        spools: the folder of all spools.
        stop: ends the server.
        interval: seconds between two drains.
        tail: number of versions of a table's log to search for the commit of a provisional record.
        fold_interval: seconds between two folds of the shards; None folds never.
        maintenance: compact and vacuum tables that are due.
    """
    result = ServeResult(DrainResult())
    folded_at, pause = time.monotonic(), interval
    while True:
        is_last = stop.wait(pause)
        is_done = _drain(root, spools, tail, result, maintenance=maintenance)
        pause = interval if is_done else min(max(LONGEST_PAUSE, interval), 2 * pause)
        is_due = fold_interval is not None and time.monotonic() - folded_at >= fold_interval
        if fold_interval is not None and (is_due or is_last):
            _fold(root, result)
            folded_at = time.monotonic()
        if is_last:
            return result


def _drain(
    root: LedgerRoot, spools: Path, tail: int, result: ServeResult, *, maintenance: bool
) -> bool:
    drain = Drain(root, tail=tail)
    done = DrainResult()
    try:
        with drain_lock(spools, root.shard, timeout=HOST_TIMEOUT) as lock:
            if lock is LockState.HELD:
                done += drain.drain_for_host([], spools, None)
            if lock is not LockState.BUSY:
                done += drain.drain_abandoned(spools)
    except Exception as error:  # noqa: BLE001 - the next drain tries again
        report("drain", error)
        result.failures += 1
        return False
    result.drained += done
    result.drains += done.segments > 0
    for table in drain.due if maintenance else ():
        maintain(root.of_shard(None), table)
    return True


def _fold(root: LedgerRoot, result: ServeResult) -> None:
    try:
        for done in fold(root):
            result.folded += done.rows
            result.failures += done.error is not None
    except Exception as error:  # noqa: BLE001 - the next fold tries again
        report("fold", error)
        result.failures += 1
