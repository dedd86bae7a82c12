"""Marks for tests of what only some releases of delta-rs have."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from deltawitness.commit.engine_version import engine_version, has_release, parse_release

SESSIONS_SINCE = {54: "1.6.1", 55: "1.6.3"}
"""First release of delta-rs whose tables a major version of DataFusion reads."""


def needs_deltalake(release, why):
    """Return a mark that skips a test where the installed delta-rs is older than a release.

    Args:
        release: the first release that has what the test needs.
        why: what older releases lack.
    """
    return pytest.mark.skipif(
        not has_release(release),
        reason=f"deltalake {engine_version()} is older than {release}: {why}",
    )


def skip_without_session():
    """Skip the test where the installed DataFusion cannot read tables of the installed delta-rs."""
    datafusion = version("datafusion")
    since = SESSIONS_SINCE.get(parse_release(datafusion)[0])
    if since is None or not has_release(since):
        pytest.skip(f"datafusion {datafusion} reads no table of deltalake {engine_version()}")
