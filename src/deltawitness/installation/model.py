"""The parts of a description of this installation, as values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from deltawitness.delta_rs.seam_states import SeamStatus

__all__ = ["InfoResult", "LedgerInfo", "SettingInfo", "SettingSource"]


class SettingSource(StrEnum):
    """Where the value of a setting comes from."""

    DEFAULT = "default"
    """Neither the environment nor the program sets it."""
    ENVIRONMENT = "env"
    """An environment variable."""
    CODE = "code"
    """The argument `settings` of `instrument()`."""


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """The value of a setting.

    Attributes:
        variable: its environment variable.
        value: its value as text. A secret is masked, and a location is replaced by its kind.
        source: where the value comes from.
        problem: what a valid value is, if the value is invalid; else None.
    """

    variable: str
    value: str | None
    source: SettingSource
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerInfo:
    """The state of a ledger on this machine. No object store is read.

    Attributes:
        kind: `local`, or the scheme of the cache root's URI, such as `s3`.
        root: the cache root without credentials; None unless paths were requested.
        is_enabled: whether the settings enable a ledger.
        tables: the ledger's tables that exist; None if the root is on an object store.
        spool_bytes: size in bytes of all spools of the ledger on this machine.
        spools: number of spools, each of one process.
        segments: number of segments that are not in the ledger yet.
        oldest: time in UTC of the last change of the oldest of these segments.
    """

    kind: str
    root: str | None
    is_enabled: bool
    tables: Sequence[str] | None
    spool_bytes: int
    spools: int
    segments: int
    oldest: dt.datetime | None


@dataclass(frozen=True, slots=True)
class InfoResult:
    """A description of this installation for a bug report, without secrets.

    Its text (`str()`) is one page. A part that cannot be read is empty, and its reason is in `problems`.

    Attributes:
        versions: version of each package of interest; None for one that is not installed.
        platform: the interpreter, the operating system and the file system encoding.
        instrumentation: state of each instrumentor: `active`, `available`, or why it is off.
        seams: the seams in delta-rs.
        settings: the settings with their sources.
        variables: variables of OpenTelemetry, and those of deltawitness that are no settings. Endpoints
            have no credentials, and headers no values.
        exporters: for each signal, the exporters of OpenTelemetry: `installed`, `chosen` or `missing`.
        extras: for each extra, the version of each of its packages; None for one that is not installed.
        ledger: state of the ledger; None if it cannot be read.
        problems: for each part that cannot be read, the reason.
    """

    versions: Mapping[str, str | None] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    instrumentation: Mapping[str, str] = field(default_factory=dict)
    seams: Sequence[SeamStatus] = ()
    settings: Sequence[SettingInfo] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    exporters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    ledger: LedgerInfo | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        from deltawitness.installation.page import page_of  # noqa: PLC0415 - it needs this class

        return page_of(self)
