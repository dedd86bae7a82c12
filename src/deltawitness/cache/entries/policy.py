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
        if not self.name:
            msg = "CachePolicy: the name must not be empty"
            raise ConfigurationError(msg)
        for field in ("max_age", "retention"):
            length = getattr(self, field)
            if length is not None and length <= timedelta(0):
                msg = f"CachePolicy: {field} must be greater than zero"
                raise ConfigurationError(msg)
        if self.target_file_size is not None and self.target_file_size < 1:
            msg = "CachePolicy: target_file_size must be at least 1 byte"
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


COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "uncompressed")

VIEW_DELTA_STAGING = CachePolicy("view_delta_staging")
"""Default policy of views: served while plan and inputs are unchanged."""

DATASET_DELTA_STAGING = CachePolicy("dataset_delta_staging")
"""Default policy of external files, directories and tables that are staged as Delta."""

RUNTIME_ARTIFACT = CachePolicy("runtime_artifact")
"""Default policy of artifacts."""

METADATA_SNAPSHOT = CachePolicy("metadata_snapshot")
"""Policy of snapshots of a session's metadata."""
