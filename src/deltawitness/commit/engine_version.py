"""The installed release of delta-rs, compared with the releases between which its interface differs."""

from __future__ import annotations

from functools import cache

from deltawitness.distributions import parse_release

__all__ = ["engine_version", "has_release", "takes_any_metadata"]


@cache
def engine_version() -> str:
    """Return the version of the installed delta-rs, such as `1.6.6`."""
    from deltalake import __version__  # noqa: PLC0415 - heavy

    return str(__version__)


@cache
def has_release(release: str) -> bool:
    """Return whether the installed delta-rs is a release or a later one.

    Args:
        release: a version, such as `1.5.0`.
    """
    return parse_release(engine_version()) >= parse_release(release)


def takes_any_metadata() -> bool:
    """Return whether `CommitProperties.custom_metadata` takes values that are not text.

    Before 1.6.0 the engine raises TypeError for such a value.
    """
    return has_release("1.6.0")
