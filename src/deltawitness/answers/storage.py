"""The storage options of a table, and the errors of the engines that read it."""

from __future__ import annotations

from deltawitness.locations import local_path, strip_credentials
from deltawitness.redaction import message_for_ledger
from deltawitness.settings import LedgerMessages, Settings

__all__ = ["error_reason", "storage_options_for"]


def storage_options_for(location: str, settings: Settings) -> dict[str, str] | None:
    """Return the storage options of the settings for a location on an object store; None for a local one.

    >>> settings = Settings(storage_options={"AWS_REGION": "eu"})
    >>> (
    ...     storage_options_for("s3://lake/orders", settings),
    ...     storage_options_for("/lake/orders", settings),
    ... )
    ({'AWS_REGION': 'eu'}, None)
    """
    return None if local_path(location) is not None else settings.storage_options


def error_reason(error: BaseException) -> str:
    """Return one line about an error, without credentials and rows; its class if it has no text."""
    text = message_for_ledger(strip_credentials(str(error)), LedgerMessages.SAFE)
    return text or type(error).__name__
