"""Marks for tests of what only some releases of delta-rs have."""

from __future__ import annotations

import pytest

from deltawitness.commit.engine_version import engine_version, has_release


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
