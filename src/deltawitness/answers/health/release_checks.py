"""Check the files that releases need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltawitness.answers.health.checks import Checkup
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity
from deltawitness.answers.releases.needed import files_that_releases_need
from deltawitness.answers.releases.values import NeededFiles, ReleaseTableState
from deltawitness.ledger.tables.releases import Release
from deltawitness.settings import Settings

__all__ = ["check_releases"]


def check_releases(
    checkup: Checkup, releases: Sequence[Release], settings: Settings
) -> Iterator[HealthFinding]:
    """Yield findings about files of a table that a release needs, before and after a vacuum deletes them.

    Args:
        checkup: the table.
        releases: the releases of the ledger.
        settings: settings with the storage options of the table.
    """
    for each in files_that_releases_need(releases, settings, checkup.state.uri):
        yield checkup.finding(
            HealthCheck.RELEASE,
            _severity(each),
            each.message,
            release=each.release,
            version=each.table.version,
            vacuum_now=each.vacuum_now,
            vacuum_later=each.vacuum_later,
            missing=each.missing,
        )


def _severity(found: NeededFiles) -> Severity:
    if found.state is not ReleaseTableState.OK:
        return Severity.ERROR
    return Severity.WARNING if found.vacuum_now else Severity.INFO
