"""The versions of DataFusion and deltalake that work together.

deltalake passes its tables to DataFusion through a binary interface that changes with each major version
of DataFusion, so a release of deltalake fits one of them. With another one deltalake refuses to register
tables, or the process ends with a segmentation fault (deltalake 1.6.3 with DataFusion 54). Only sessions
and the cache use both packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deltawitness.distributions import installed_version, parse_release
from deltawitness.exceptions import UnsupportedEngineError

__all__ = ["PAIRS", "EnginePair", "are_supported", "check_engines", "required_engines"]

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnginePair:
    """Versions of DataFusion and the versions of deltalake that fit them.

    Attributes:
        datafusion: the first version of `datafusion`, and the first later one that does not fit.
        deltalake: the first version of `deltalake` that fits, and the first later one that does not.
    """

    datafusion: tuple[Version, Version]
    deltalake: tuple[Version, Version]

    def __str__(self) -> str:
        return " with ".join(self.requirements)

    @property
    def requirements(self) -> tuple[str, str]:
        """The pair as requirements of packages."""
        return (
            f"datafusion {_range_of(*self.datafusion)}",
            f"deltalake {_range_of(*self.deltalake)}",
        )

    def fits(self, deltalake: Version) -> bool:
        """Return whether a version of `deltalake` is in the pair."""
        first, end = self.deltalake
        return first <= deltalake < end


PAIRS = (
    EnginePair(datafusion=((55,), (56,)), deltalake=((1, 6, 6), (1, 7))),
    EnginePair(datafusion=((54,), (54, 1)), deltalake=((1, 6, 1), (1, 6, 3))),
)
"""The tested pairs, newest first. DataFusion 54.1 has a setting that these releases of deltalake lack, so
that a query of a registered table fails."""

_FIRST_TOKENIZER = (25, 32)
_TOKENIZER = f"sqlglot >= {'.'.join(map(str, _FIRST_TOKENIZER))}"
"""What the SQL statements of sessions need besides the engines, as in the extra `datafusion`."""


def check_engines() -> None:
    """Check that the installed DataFusion and deltalake are a tested pair.

    Raises:
        UnsupportedEngineError: they are not.
    """
    datafusion, deltalake = _installed("datafusion"), _installed("deltalake")
    pair = _pair_of(datafusion)
    if pair is None or not pair.fits(parse_release(deltalake)):
        msg = (
            f"datafusion {datafusion} with deltalake {deltalake} is not supported:"
            f" deltawitness[datafusion] needs {', or '.join(map(str, PAIRS))}"
        )
        raise UnsupportedEngineError(msg)


def are_supported() -> bool:
    """Return whether final releases of the requirements are installed, without parsing requirements.

    False means that :func:`required_engines` has to be checked: pre-releases follow other rules.
    """
    versions = [_installed(name) for name in ("datafusion", "deltalake", "sqlglot")]
    if not all(re.fullmatch(r"\d+(\.\d+)*", version) for version in versions):
        return False
    pair = _pair_of(versions[0])
    return (
        pair is not None
        and pair.fits(parse_release(versions[1]))
        and parse_release(versions[2]) >= _FIRST_TOKENIZER
    )


def required_engines() -> tuple[str, ...]:
    """Return requirements of sessions: the pair of the installed DataFusion, or else the newest pair."""
    pair = _pair_of(_installed("datafusion")) or PAIRS[0]
    return *pair.requirements, _TOKENIZER


def _pair_of(datafusion: str) -> EnginePair | None:
    numbers = parse_release(datafusion)
    return next((p for p in PAIRS if p.datafusion[0] <= numbers < p.datafusion[1]), None)


def _range_of(first: Version, end: Version) -> str:
    """Return a range of versions as in a requirement.

    >>> _range_of((1, 6, 1), (1, 6, 3))
    '>= 1.6.1, < 1.6.3'
    """
    return f">= {'.'.join(map(str, first))}, < {'.'.join(map(str, end))}"


def _installed(package: str) -> str:
    return installed_version(package) or "(unknown version)"
