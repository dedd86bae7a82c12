"""The installed release of delta-rs, compared with the releases between which its interface differs."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["engine_version", "has_release", "parse_release", "takes_any_metadata"]


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


def parse_release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without the parts of a pre-release or a local version.

    >>> parse_release("1.6.6"), parse_release("1.7.0rc1")
    ((1, 6, 6), (1, 7, 0))
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def takes_any_metadata() -> bool:
    """Return whether `CommitProperties.custom_metadata` takes values that are not text.

    Before 1.6.0 the engine raises TypeError for such a value.
    """
    return has_release("1.6.0")
