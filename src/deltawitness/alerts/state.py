"""What was sent to a webhook: a file beside the ledger, and a lock for the time of a delivery."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deltawitness.alerts.values import Alert, AlertKind
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.ledger.tables.locations import lock_folder
from deltawitness.ledger.tables.private_files import read_private_file, write_private_file
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.local_files import lock, open_lock_file
from deltawitness.settings import Settings

__all__ = ["Batch", "NotifyState", "StateFile", "StateFileError"]

FOLDER = "notify"
_FORMAT = 1


class StateFileError(DeltaWitnessError):
    """The file with the sent alerts cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A request before it is known whether the receiver has it.

    Attributes:
        key: the idempotency key.
        body: its body, which each attempt sends.
        alerts: the alerts in it.
    """

    key: str
    body: str
    alerts: tuple[Alert, ...]


@dataclass(slots=True)
class NotifyState:
    """What was sent to a destination.

    Attributes:
        problems: the alert of each problem that was sent and has not recovered, by job or table.
        pending: a request that was begun.
    """

    problems: dict[str, Alert] = field(default_factory=dict)
    pending: Batch | None = None

    def record(self, alerts: Sequence[Alert]) -> None:
        """Record that the receiver has alerts, and that no request is pending."""
        for each in alerts:
            if each.kind is AlertKind.RECOVERED:
                self.problems.pop(each.subject, None)
            else:
                self.problems[each.subject] = each
        self.pending = None

    def to_json(self) -> str:
        """Return the content of the file."""
        values = {
            "format": _FORMAT,
            "problems": [asdict(each) for each in self.problems.values()],
            "pending": None if self.pending is None else asdict(self.pending),
        }
        return json.dumps(values, default=datetime.isoformat)

    @classmethod
    def parse(cls, text: bytes) -> NotifyState:
        """Parse the content of the file.

        Raises:
            ValueError: it is not valid, or of a later release.
            LookupError: it lacks a value.
            TypeError: it has a value of another type.
        """
        values = json.loads(text)
        if values["format"] != _FORMAT:
            msg = "it was written by a later release"
            raise ValueError(msg)
        pending = values["pending"]
        return cls(
            {each["subject"]: _alert(each) for each in values["problems"]},
            None
            if pending is None
            else Batch(pending["key"], pending["body"], tuple(map(_alert, pending["alerts"]))),
        )


def _alert(values: dict[str, Any]) -> Alert:
    return Alert(
        **{
            **values,
            "kind": AlertKind(values["kind"]),
            "problem": AlertKind(values["problem"]),
            "since": datetime.fromisoformat(values["since"]),
        }
    )


class StateFile:
    """The file with the state of a destination.

    Args:
        settings: the settings of the ledger.
        root: the ledger.
        destination: URL of the webhook, of which only a hash is in the name of the file.
        folder: folder for the file; None: `notify` in the cache root.
    """

    def __init__(
        self,
        settings: Settings,
        root: LedgerRoot,
        destination: str,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        digest = hashlib.sha256(destination.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._name = f"{FOLDER}/{digest}.json"
        self._uri = root.uri if folder is None else str(Path(folder).absolute())
        self._options = root.storage_options if folder is None else None
        locks = lock_folder(settings, root) if folder is None else Path(folder).absolute()
        self._lock = locks / f"notify-{digest}.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other notifiers of this machine with the same destination; wait for them.

        Raises:
            OSError: the lock file cannot be opened.
        """
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_lock_file(self._lock)
        try:
            lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> NotifyState:
        """Return the state; an empty one if there is no file.

        Raises:
            StateFileError: the file cannot be parsed.
            OSError: it cannot be read.
        """
        content = read_private_file(self._uri, self._name, self._options)
        if content is None:
            return NotifyState()
        try:
            return NotifyState.parse(content)
        except (ValueError, LookupError, TypeError) as error:
            msg = f"{self._name} in the cache root cannot be parsed: delete it to send all alerts again"
            raise StateFileError(msg) from error

    def write(self, state: NotifyState) -> None:
        """Replace the state.

        Raises:
            OSError: the file cannot be written.
        """
        content = state.to_json().encode("utf-8", "surrogatepass")
        write_private_file(self._uri, self._name, content, self._options)
