"""The public function `notify`: send what has newly happened in a ledger to a webhook."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from deltawitness.alerts.find import find_alerts
from deltawitness.alerts.messages import body_of
from deltawitness.alerts.state import Batch, NotifyState, StateFile
from deltawitness.alerts.values import Alert, AlertKind, MessageFormat, NotifyResult
from deltawitness.alerts.webhook import Webhook
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.trends.overdue import TOLERANCE
from deltawitness.answers.trends.past import now
from deltawitness.http_post import PostError
from deltawitness.ids_and_clock import in_utc, new_id
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["notify", "send_alerts"]

BATCH = 100
"""Maximum number of alerts in a request."""


def notify(  # noqa: PLR0913 - keyword-only options
    url: str,
    *,
    secret: str | None = None,
    shown_as: MessageFormat | str = MessageFormat.JSON,
    kinds: Iterable[AlertKind | str] = tuple(AlertKind),
    dry_run: bool = False,
    allow_http: bool = False,
    at: datetime | None = None,
    tolerance: float = TOLERANCE,
    state: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> NotifyResult:
    """Send what is newly broken, overdue or recovered to a webhook, each problem once.

    What was sent is recorded beside the ledger, for each URL. A request that was interrupted, or that the
    receiver did not answer, is sent again by the next call with the same idempotency key.

    Args:
        url: URL of the webhook: `https`, or `http` on this machine.
        secret: signs the requests, in the header `Deltawitness-Signature`.
        shown_as: `json`, `slack` or `teams`.
        kinds: which alerts are sent: `broken`, `overdue`, `recovered`.
        dry_run: send and record nothing.
        allow_http: accept `http` for a host that is not this machine.
        at: the time for which the ledger is judged; now when None. UTC without a time zone.
        tolerance: as for :func:`deltawitness.overdue`.
        state: folder for the record of what was sent; None: `notify` in the cache root.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger.
        ConfigurationError: the URL or a setting is invalid.
        DeltaWitnessError: the record of what was sent cannot be parsed.
        ValueError: there is no such format or kind, or the tolerance is not positive.
        OSError: the ledger's storage cannot be read, or the record cannot be written.
    """
    chosen = settings_with(root, storage_options, settings)
    webhook = Webhook(url, secret, allow_http=allow_http)
    ledger = ledger_of(chosen)
    return send_alerts(
        ledger,
        webhook,
        StateFile(chosen, ledger.root, url, state),
        MessageFormat(shown_as),
        kinds=tuple(map(AlertKind, kinds)),
        at=in_utc(at),
        tolerance=tolerance,
        dry_run=dry_run,
    )


def send_alerts(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    webhook: Webhook,
    file: StateFile,
    shown_as: MessageFormat,
    *,
    kinds: Sequence[AlertKind],
    at: datetime | None,
    tolerance: float,
    dry_run: bool,
) -> NotifyResult:
    """Send the new alerts of a ledger; arguments and errors as for :func:`notify`.

    Args:
        ledger: the ledger to query.
        webhook: where to send them.
        file: the record of what was sent.
        shown_as: the format.
        kinds: which alerts are sent.
        at: the time for which the ledger is judged; now when None.
        tolerance: number of standard deviations that is not unusual.
        dry_run: send and record nothing.
    """
    result = NotifyResult(
        at=at or now(), destination=webhook.destination, alerts=(), is_dry_run=dry_run
    )

    def find(state: NotifyState) -> tuple[Alert, ...]:
        return find_alerts(ledger, state.problems, at=result.at, tolerance=tolerance, kinds=kinds)

    if dry_run:
        state = file.read()
        waiting = () if state.pending is None else state.pending.alerts
        state.record(waiting)
        return replace(result, alerts=(*waiting, *find(state)))
    with file.locked():
        delivery = _Delivery(webhook, file, file.read(), result)
        try:
            delivery.send_pending()
            found = find(delivery.state)
            for first in range(0, len(found), BATCH):
                delivery.send(found[first : first + BATCH], shown_as)
        except PostError as error:
            delivery.result = replace(delivery.result, error=str(error))
        return delivery.result


class _Delivery:
    """Sends batches, and records each before and after it is sent.

    Attributes:
        state: what was sent.
        result: the result so far.
    """

    def __init__(
        self, webhook: Webhook, file: StateFile, state: NotifyState, result: NotifyResult
    ) -> None:
        self._webhook = webhook
        self._file = file
        self.state = state
        self.result = result

    def send_pending(self) -> None:
        """Send the request again that was begun and not recorded as sent."""
        if self.state.pending is not None:
            self._post(self.state.pending)

    def send(self, alerts: tuple[Alert, ...], shown_as: MessageFormat) -> None:
        """Send alerts in one request."""
        ids = "\n".join((new_id(), *(each.id for each in alerts)))
        key = hashlib.sha256(ids.encode()).hexdigest()[:32]
        self.state.pending = Batch(key, body_of(alerts, shown_as, key), alerts)
        self._file.write(self.state)
        self._post(self.state.pending)

    def _post(self, batch: Batch) -> None:
        self.result = replace(self.result, alerts=(*self.result.alerts, *batch.alerts))
        try:
            attempts = self._webhook.post(batch.body, batch.key)
        except PostError as error:
            self.result = replace(self.result, attempts=self.result.attempts + error.attempts)
            if error.is_refused:  # the receiver has none of it: the next call makes a new request
                self.state.pending = None
                self._file.write(self.state)
            raise
        self.state.record(batch.alerts)
        self._file.write(self.state)
        self.result = replace(
            self.result,
            sent=self.result.sent + len(batch.alerts),
            attempts=self.result.attempts + attempts,
        )
