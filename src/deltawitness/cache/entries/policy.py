"""Cache policies: how entries are stored and how long they are served, under a name for telemetry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from deltawitness.exceptions import ConfigurationError

__all__ = [
    "DATASET_DELTA_STAGING",
    "METADATA_SNAPSHOT",
    "RUNTIME_ARTIFACT",
    "VIEW_DELTA_STAGING",
    "CachePolicy",
    "OnError",
    "check_duration",
    "check_policy",
]


class OnError(StrEnum):
    """What happens when the cache itself fails: an entry cannot be read or written."""

    COMPUTE = "compute"
    """Compute and return the result, and report the failure."""
    RAISE = "raise"
    """Raise the failure."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How entries are stored and how long they are served.

    Args:
        name: the name in telemetry, commits and the ledger (`cache.policy`).
        max_age: how long an entry is served at most; None: while it is valid.
        partition_by: columns to partition the table by.
        zorder_by: columns to Z-order the files by, after the write.
        target_file_size: target size of a data file, in bytes.
        retention: how old an entry or a replaced version gets before `prune` deletes it.
        compress: compression of the Parquet files: `zstd`, `snappy`, `lz4`, `gzip` or
            `uncompressed`.
        on_error: `compute` or `raise`, when the cache itself fails.

    Raises:
        ConfigurationError: the name is empty, a duration is not positive, or a choice is not one
            of those named.

    >>> CachePolicy("hourly", max_age=timedelta(hours=1)).on_error.value
    'compute'
    """

    name: str
    max_age: timedelta | None = None
    partition_by: tuple[str, ...] = ()
    zorder_by: tuple[str, ...] = ()
    target_file_size: int | None = None
    retention: timedelta | None = None
    compress: str = "zstd"
    on_error: OnError | str = OnError.COMPUTE

    def __post_init__(self) -> None:
        """Check and normalize the fields."""
        if not isinstance(self.name, str) or not self.name:
            msg = "CachePolicy: the name must be a non-empty string"
            raise ConfigurationError(msg)
        for field in ("max_age", "retention"):
            length = getattr(self, field)
            if length is not None:
                check_duration(f"CachePolicy: {field}", length)
        size = self.target_file_size
        if size is not None and (not isinstance(size, int) or size < 1):
            msg = (
                "CachePolicy: target_file_size must be an integer number of bytes greater than zero"
            )
            raise ConfigurationError(msg)
        if self.compress not in COMPRESSIONS:
            msg = f"CachePolicy: compress must be one of {', '.join(COMPRESSIONS)}"
            raise ConfigurationError(msg)
        try:
            object.__setattr__(self, "on_error", OnError(self.on_error))
        except ValueError:
            msg = f"CachePolicy: on_error must be one of {', '.join(OnError)}"
            raise ConfigurationError(msg) from None
        for field in ("partition_by", "zorder_by"):
            columns = getattr(self, field)
            names = (columns,) if isinstance(columns, str) else tuple(columns)
            object.__setattr__(self, field, names)


def check_duration(name: str, length: object) -> None:
    """Raise unless a length of time is a `timedelta` greater than zero.

    Args:
        name: starts the message, such as `CachePolicy: max_age`.
        length: the value.

    Raises:
        ConfigurationError: it is of another type, zero or negative.
    """
    if not isinstance(length, timedelta):
        msg = f"{name} must be a datetime.timedelta such as timedelta(hours=1), not {length!r}"
        raise ConfigurationError(msg)
    if length <= timedelta(0):
        msg = f"{name} must be greater than zero"
        raise ConfigurationError(msg)


def check_policy(policy: object) -> None:
    """Raise unless an argument `policy` is a :class:`CachePolicy`.

    Raises:
        ConfigurationError: it is of another type.
    """
    if not isinstance(policy, CachePolicy):
        text = repr(policy) if isinstance(policy, str) else "..."
        msg = f"policy: expected CachePolicy({text}), not {type(policy).__name__}"
        raise ConfigurationError(msg)


COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "uncompressed")

VIEW_DELTA_STAGING = CachePolicy("view_delta_staging")
"""Default policy of views: served while plan and inputs are unchanged."""

DATASET_DELTA_STAGING = CachePolicy("dataset_delta_staging")
"""Default policy of external files, directories and tables that are staged as Delta."""

RUNTIME_ARTIFACT = CachePolicy("runtime_artifact")
"""Default policy of artifacts."""

METADATA_SNAPSHOT = CachePolicy("metadata_snapshot")
"""Policy of snapshots of a session's metadata."""
