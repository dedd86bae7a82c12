"""The ledger of a program under `deltawitness run`: its location, and the drain after the program."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deltawitness.cli.console import print_error
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.spool.reader import spools_in
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.supervisor import ProcessEnd
from deltawitness.ledger.spool.writer import Spool
from deltawitness.ledger.tables.locations import absolute_root, shard_of, spool_folder_of
from deltawitness.locations import local_path, strip_credentials
from deltawitness.redaction import message_for_ledger
from deltawitness.report.format import storage_reason
from deltawitness.run_context import RunContext
from deltawitness.run_origin import process_origin
from deltawitness.semconv import Env
from deltawitness.settings import LedgerMessages, Settings
from deltawitness.thread_hold import hold_at_exit
from deltawitness.thread_wait import wait_while_working

__all__ = ["OwnFolder", "RunLedger", "default_folder", "run_ledger"]

DRAIN_TIMEOUT = 30.0
"""Seconds without progress after which the command no longer waits for the final drain."""

LONGEST_DRAIN = 120.0
"""Maximum time in seconds that the command waits for the final drain."""


class OwnFolder:
    """The default ledger folder, which gets a `.gitignore` if it does not exist before the command.

    Args:
        path: the folder; None if the user chose the location, or if it is not on a local disk.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None or Path(path).exists() else Path(path)

    def ensure_gitignore(self) -> None:
        """Write the folder's `.gitignore` if the folder was created since this object was."""
        if self._path is not None and self._path.is_dir():
            with suppress(OSError):
                (self._path / ".gitignore").write_text("*\n")


def default_folder(settings: Settings) -> OwnFolder:
    """Return the folder of the settings' cache root, for a command that may create it.

    Args:
        settings: the settings; only a location that they do not set gets a `.gitignore`.
    """
    is_default = settings.cache_root is None
    return OwnFolder(local_path(absolute_root(settings)) if is_default else None)


@dataclass(frozen=True, slots=True)
class RunLedger:
    """The ledger of a program that the command runs.

    Attributes:
        environment: variables that make the program write to this ledger, or to none.
        root: the absolute location of the ledger; None when the program writes none.
        spools: the folder of the spools that are not drained yet.
        folder: the ledger's folder, when its location is the default.
        shard: the shard to which the program's processes commit; None for the main tables.
    """

    environment: dict[str, str] = field(default_factory=dict)
    root: str | None = None
    spools: Path = Path()
    folder: OwnFolder = field(default_factory=lambda: OwnFolder(None))
    shard: str | None = None

    @property
    def shown(self) -> str | None:
        """The location without credentials; None when there is no ledger, or its folder does not exist."""
        if self.root is None:
            return None
        where = local_path(self.root)
        if where is None:
            return strip_credentials(self.root)
        return where if Path(where).is_dir() else None

    def drain(self, end: ProcessEnd, job: str, *, has_written: bool) -> int:
        """Drain the spools of the ended program into the ledger; return the number of operations.

        An error prints one line and does not change the exit code of the command.

        Args:
            end: how the program ended, for the row of its run.
            job: job name of that run.
            has_written: whether a process of the run is known to have written.
        """
        self.folder.ensure_gitignore()
        if self.root is None:
            return 0
        is_written = end.write_to(self.spools)
        if end.exit_code != 0 and has_written and not is_written:
            # The program is not observed itself, such as a shell: only its exit code says that the
            # run has failed.
            self._spool_failed_run(end, job, self.root)
        if not self._has_spools():
            return 0
        operations: list[int] = []
        hold_at_exit()
        thread = threading.Thread(
            target=lambda: operations.append(_drain()), name="deltawitness-drain", daemon=True
        )
        thread.start()
        started = time.monotonic()
        if not wait_while_working(thread, timeout=DRAIN_TIMEOUT, longest=LONGEST_DRAIN):
            lasted = time.monotonic() - started
            print_error(
                f"the ledger drain takes more than {lasted:.0f} s: the next drain imports the other spools"
            )
        return sum(operations)

    def _spool_failed_run(self, end: ProcessEnd, job: str, root: str) -> None:
        """Spool the row of a failed run whose main process is not observed."""
        from deltawitness.ledger.tables.run_rows import OpenRun, RunStatus, Tally, run_row  # noqa: PLC0415 - heavy
        from deltawitness.ledger.tables.write_rows import as_json, ledger_uri  # noqa: PLC0415 - heavy

        problems: list[BaseException] = []
        spool = Spool(self.spools, limit=1 << 20, shard=self.shard, on_error=problems.append)
        context = RunContext(end.run_id, job, origin=process_origin())
        started = OpenRun(context, is_part=False).start_row(ledger_uri(root))
        started["pid"] = end.pid
        row = run_row(started, Tally(), status=RunStatus.ABANDONED, end_time=now_ns() // 1000)
        spool.append(RecordKind.RUN_END, end.run_id, as_json(end.row_with_exit(row)))
        spool.close()

    def _has_spools(self) -> bool:
        try:
            return bool(spools_in(self.spools, None))
        except OSError:
            return False


def run_ledger(*, is_wanted: bool) -> RunLedger:
    """Return the ledger of a program that starts in this working directory and environment.

    Args:
        is_wanted: False with the option `--no-ledger`.
    """
    if not is_wanted:
        return RunLedger({Env.LEDGER.value: "false"})
    try:
        settings = Settings.from_env()
    except ConfigurationError:
        return RunLedger()  # the program fails at its start with this error
    if not settings.ledger:
        return RunLedger()
    root = absolute_root(settings)
    return RunLedger(
        _root_variables(root, os.environ),
        root,
        spool_folder_of(settings, root),
        OwnFolder(root if settings.cache_root is None else None),
        shard_of(settings),
    )


def _root_variables(root: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give the program an absolute root.

    Args:
        root: the absolute location.
        environ: the environment of the command.
    """
    variables = {Env.CACHE_ROOT.value: root}
    if environ.get(Env.ROOT):
        variables[Env.ROOT.value] = root
    given = environ.get(Env.CACHE_ROOT)
    if not given or given == environ.get(Env.CHOSEN_ROOT):
        # The program may set DELTAWITNESS_ROOT, as it may without the command.
        variables[Env.CHOSEN_ROOT.value] = root
    return variables


def _drain() -> int:
    # Imported here: the ledger is heavy, and most programs leave no spool.
    from deltawitness.ledger.ledger import Ledger  # noqa: PLC0415 - heavy

    operations = 0
    try:
        operations = Ledger().drain().operations
    except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
        text = message_for_ledger(storage_reason(str(error)), LedgerMessages.SAFE)
        print_error(f"the ledger cannot be written: {text}")
    return operations
