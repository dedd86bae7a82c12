"""Versions of installed distributions."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["installed_version", "parse_release"]


@cache
def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed.

    The distribution's metadata is read, and no package of it is imported.

    Args:
        name: name of the distribution, such as `opentelemetry-sdk`.
    """
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - heavy

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def parse_release(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without the parts of a pre-release or a local version.

    >>> parse_release("1.6.6"), parse_release("1.7.0rc1")
    ((1, 6, 6), (1, 7, 0))
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
