"""Marks for tests of what only some releases of delta-rs have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import deltalake
import pytest

from deltawitness.commit.engine_version import engine_version, has_release
from deltawitness.distributions import parse_release

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


def has_sessions():
    """Return whether the installed DataFusion reads tables of the installed delta-rs."""
    since = SESSIONS_SINCE.get(parse_release(version("datafusion"))[0])
    return since is not None and has_release(since)


def skip_without_session():
    """Skip the test where the installed DataFusion reads no table of the installed delta-rs."""
    if not has_sessions():
        pytest.skip(
            f"datafusion {version('datafusion')} reads no table of deltalake {engine_version()}"
        )


@contextmanager
def pretended_release(release) -> Iterator[None]:
    """Give the installed delta-rs another version in the block; its functions stay the same."""
    cached = engine_version, has_release
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deltalake, "__version__", release)
        for function in cached:
            function.cache_clear()
        try:
            yield
        finally:
            patch.undo()
            for function in cached:
                function.cache_clear()
