"""How a kind of cached thing is kept, under a name that its telemetry carries."""

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
    """What happens when the cache itself fails: it cannot be read, or cannot be written."""

    COMPUTE = "compute"
    """The result is computed and returned; the failure is reported."""
    RAISE = "raise"
    """The failure is raised."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a kind of cached thing is kept.

    Args:
        name: what telemetry, commits and the ledger call it (`cache.policy`).
        max_age: how long an entry is served; for ever when None, as long as it is true.
        partition_by: columns to partition it by.
        zorder_by: columns to order its files by, after it has been written.
        target_file_size: bytes per file to aim at.
        retention: how long what is no longer served is kept before `prune` lets it go.
        compress: compression of its Parquet files: `zstd`, `snappy`, `lz4`, `gzip` or
            `uncompressed`.
        on_error: `compute` or `raise`, when the cache itself fails.

    Raises:
        ConfigurationError: the name is empty, a length of time is not positive, or a choice is
            none of those named.

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
        """Refuse what cannot be meant."""
        if not isinstance(self.name, str) or not self.name:
            msg = "CachePolicy: the name must be a non-empty string"
            raise ConfigurationError(msg)
        for field in ("max_age", "retention"):
            length = getattr(self, field)
            if length is not None:
                check_duration(f"CachePolicy: {field}", length)
        size = self.target_file_size
        if size is not None and (not isinstance(size, int) or size < 1):
            msg = "CachePolicy: target_file_size must be a whole number of bytes greater than zero"
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
            kept = (columns,) if isinstance(columns, str) else tuple(columns)
            object.__setattr__(self, field, kept)


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
"""Of a view: served for as long as its plan and its inputs are what they were."""

DATASET_DELTA_STAGING = CachePolicy("dataset_delta_staging")
"""Of an external file, directory or table that is staged as Delta."""

RUNTIME_ARTIFACT = CachePolicy("runtime_artifact")
"""Of what a program makes and wants to find again."""

METADATA_SNAPSHOT = CachePolicy("metadata_snapshot")
"""Of a session's metadata."""
