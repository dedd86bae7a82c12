"""The errors deltawitness raises itself; an engine's own error always leaves unmodified.

::

    DeltaWitnessError
    ├── ConfigurationError      (ValueError)   a setting or environment variable is wrong
    ├── MetadataKeyError        (ValueError)   a commit key of ours would break a reader
    ├── WriteRequestError       (ValueError)   a pipeline request that cannot be written
    ├── StatementError          (ValueError)   a SQL statement that cannot be carried out on Delta
    ├── CacheError              (RuntimeError) a cache entry that cannot be read or written
    └── CommitNotFoundError     (LookupError)  no such version in the table's log

Its warnings are :class:`RepeatedStatementWarning` and :class:`CommitKeyWarning`, both a `UserWarning`.
"""

from __future__ import annotations

__all__ = [
    "CacheError",
    "CommitKeyWarning",
    "CommitNotFoundError",
    "ConfigurationError",
    "DeltaWitnessError",
    "MetadataKeyError",
    "RepeatedStatementWarning",
    "StatementError",
    "WriteRequestError",
]


class DeltaWitnessError(Exception):
    """Base of every error that deltawitness raises on its own account."""


class ConfigurationError(DeltaWitnessError, ValueError):
    """A setting is invalid; the message names the variable and the values it allows."""


class MetadataKeyError(DeltaWitnessError, ValueError):
    """A commit metadata key that delta-rs or another reader of the log would choke on."""


class WriteRequestError(DeltaWitnessError, ValueError):
    """A write request that cannot be carried out as it stands; nothing was written."""


class StatementError(DeltaWitnessError, ValueError):
    """A SQL statement or a frame's write that cannot be carried out on a Delta table; nothing was written."""


class CommitNotFoundError(DeltaWitnessError, LookupError):
    """The asked-for version is not in the table's log."""


class CacheError(DeltaWitnessError, RuntimeError):
    """A cache entry that cannot be read or written, where the policy is to say so."""


class CommitKeyWarning(UserWarning):
    """A key of a caller's commit metadata that breaks readers of the Delta log, once for each key.

    It is given before the engine is reached: a filter that makes it an error prevents the write.
    """


class RepeatedStatementWarning(UserWarning):
    """A statement that writes has run before and is run again by the same frame, once for each frame.

    It is given before the engine is reached: a filter that makes it an error prevents the second run.
    """
