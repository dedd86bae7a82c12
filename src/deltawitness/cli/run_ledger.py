"""The ledger that a program keeps under `deltawitness run`: where, and what the program leaves to us."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deltawitness.cli.console import print_error
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.supervisor import ProcessEnd
from deltawitness.ledger.spool.writer import REVISION, Spool
from deltawitness.ledger.tables.locations import absolute_root, spool_folder_of
from deltawitness.locations import local_path, strip_credentials
from deltawitness.redaction import message_for_ledger
from deltawitness.run import RunContext
from deltawitness.semconv import Env
from deltawitness.settings import LedgerMessages, Settings

__all__ = ["OwnFolder", "RunLedger", "run_ledger"]

DRAIN_TIMEOUT = 30.0
"""Seconds that the end of the command waits for what the program left."""


class OwnFolder:
    """A folder that the command may come to make; when it does, git is told to leave it alone.

    Args:
        path: the folder; None for one that somebody else chose, or that is on no disk.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None or Path(path).exists() else Path(path)

    def settle(self) -> None:
        """Write its `.gitignore`, if it is there now and was not before."""
        if self._path is not None and self._path.is_dir():
            with suppress(OSError):
                (self._path / ".gitignore").write_text("*\n")


@dataclass(frozen=True, slots=True)
class RunLedger:
    """The ledger of a program that the command runs.

    Attributes:
        environment: what makes the program keep it.
        root: where it lies, absolute; None when none is kept.
        spools: the folder of what is not in it yet.
        folder: the one that it lies in, when the command chose it.
    """

    environment: dict[str, str] = field(default_factory=dict)
    root: str | None = None
    spools: Path = Path()
    folder: OwnFolder = field(default_factory=lambda: OwnFolder(None))

    @property
    def shown(self) -> str | None:
        """Where it lies, as it may be shown; None when there is none."""
        if self.root is None:
            return None
        where = local_path(self.root)
        if where is None:
            return strip_credentials(self.root)
        return where if Path(where).is_dir() else None

    def take_over(self, end: ProcessEnd, job: str, *, has_written: bool) -> int:
        """Carry what dead processes left into the ledger; return how many operations there were.

        Whatever goes wrong is one line: how the program ended is all that the command ends with.

        Args:
            end: how the program ended, for the row of its run.
            job: name of that run.
            has_written: whether a process of the run is known to have written.
        """
        self.folder.settle()
        if self.root is None:
            return 0
        is_written = end.write_to(self.spools)
        if end.exit_code != 0 and has_written and not is_written:
            # A shell, or another program that is not observed itself: only its exit code says that
            # the run has failed.
            _spool_failed_run(self.spools, end, job, self.root)
        if not self._has_spools():
            return 0
        carried: list[int] = []
        thread = threading.Thread(target=lambda: carried.append(_drain()), daemon=True)
        thread.start()
        thread.join(DRAIN_TIMEOUT)
        if thread.is_alive():
            print_error("the ledger takes its time: the next drain carries what still waits")
        return sum(carried)

    def _has_spools(self) -> bool:
        try:
            return any(name.startswith(REVISION) for name in os.listdir(self.spools))  # noqa: PTH208 - names are all that is needed
        except OSError:
            return False


def run_ledger(*, is_wanted: bool) -> RunLedger:
    """Return the ledger that a program started here and now keeps.

    Args:
        is_wanted: whether the command line asks for one.
    """
    if not is_wanted:
        return RunLedger({Env.LEDGER.value: "false"})
    try:
        settings = Settings.from_env()
    except ConfigurationError:
        return RunLedger()  # the program's own start says what is wrong, and ends it
    if not settings.ledger:
        return RunLedger()
    root = absolute_root(settings)
    return RunLedger(
        {name.value: root for name in (Env.CACHE_ROOT, Env.ROOT) if _is_set(name)},
        root,
        spool_folder_of(settings, root),
        OwnFolder(root if settings.cache_root is None else None),
    )


def _is_set(name: Env) -> bool:
    """Return whether the program's environment needs the absolute root under this name."""
    return name is Env.CACHE_ROOT or bool(os.environ.get(name))


def _drain() -> int:
    # The ledger is heavy, and most programs leave nothing: imported where there is something.
    from deltawitness.ledger.ledger import Ledger  # noqa: PLC0415 - as said

    operations = 0
    try:
        operations = Ledger().drain().operations
    except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
        text = message_for_ledger(str(error), LedgerMessages.SAFE)
        print_error(f"the ledger cannot be written: {text}")
    return operations


def _spool_failed_run(spools: Path, end: ProcessEnd, job: str, root: str) -> None:
    """Write the row of a run whose own process is not observed and has failed."""
    from deltawitness.ledger.tables.run_rows import OpenRun, RunStatus, Tally, run_row  # noqa: PLC0415 - heavy
    from deltawitness.ledger.tables.write_rows import as_json, ledger_uri  # noqa: PLC0415 - heavy

    problems: list[BaseException] = []
    spool = Spool(spools, limit=1 << 20, on_error=problems.append)
    started = OpenRun(RunContext(end.run_id, job), is_part=False).start_row(ledger_uri(root))
    started["pid"] = end.pid
    row = run_row(started, Tally(), status=RunStatus.ABANDONED, end_time=now_ns() // 1000)
    spool.append(RecordKind.RUN_END, end.run_id, as_json(end.row_with_exit(row)))
    spool.close()
