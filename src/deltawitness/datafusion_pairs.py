"""The versions of DataFusion and deltalake that work together.

deltalake hands its tables to DataFusion through a binary interface that changes with each major version
of DataFusion, so a release of deltalake fits one of them. With another one deltalake refuses to register
tables, or the process ends with a segmentation fault (deltalake 1.6.3 with DataFusion 54). Only sessions
and the cache use both packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from deltawitness.exceptions import UnsupportedEngineError

__all__ = ["PAIRS", "EnginePair", "check_engines", "required_engines"]

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnginePair:
    """A major version of DataFusion and the versions of deltalake that fit it.

    Attributes:
        datafusion: the major version of `datafusion`.
        deltalake: the first version of `deltalake` that fits, and the first later one that does not.
    """

    datafusion: int
    deltalake: tuple[Version, Version]

    def __str__(self) -> str:
        return " with ".join(self.requirements)

    @property
    def requirements(self) -> tuple[str, str]:
        """The pair as requirements of packages."""
        first, end = (".".join(map(str, version)) for version in self.deltalake)
        return (
            f"datafusion >= {self.datafusion}, < {self.datafusion + 1}",
            f"deltalake >= {first}, < {end}",
        )

    def fits(self, deltalake: Version) -> bool:
        """Return whether a version of `deltalake` is in the pair."""
        first, end = self.deltalake
        return first <= deltalake < end


PAIRS = (
    EnginePair(datafusion=55, deltalake=((1, 6, 6), (1, 7))),
    EnginePair(datafusion=54, deltalake=((1, 6, 1), (1, 6, 3))),
)
"""The tested pairs, newest first."""

_TOKENIZER = "sqlglot >= 25.32"
"""What the SQL statements of sessions need besides the engines, as in the extra `datafusion`."""


def check_engines() -> None:
    """Check that the installed DataFusion and deltalake are a tested pair.

    Raises:
        UnsupportedEngineError: they are not.
    """
    datafusion, deltalake = _installed("datafusion"), _installed("deltalake")
    pair = _pair_of(datafusion)
    if pair is None or not pair.fits(_numbers(deltalake)):
        msg = (
            f"datafusion {datafusion} with deltalake {deltalake} is not supported:"
            f" deltawitness[datafusion] needs {', or '.join(map(str, PAIRS))}"
        )
        raise UnsupportedEngineError(msg)


def required_engines() -> tuple[str, ...]:
    """Return requirements of sessions: the pair of the installed DataFusion, or else the newest pair."""
    pair = _pair_of(_installed("datafusion")) or PAIRS[0]
    return *pair.requirements, _TOKENIZER


def _pair_of(datafusion: str) -> EnginePair | None:
    major = _numbers(datafusion)[:1]
    return next((pair for pair in PAIRS if (pair.datafusion,) == major), None)


def _numbers(text: str) -> Version:
    """Return the release numbers of a version, without the mark of a pre-release."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    return () if release is None else tuple(map(int, release[0].split(".")))


@cache
def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
