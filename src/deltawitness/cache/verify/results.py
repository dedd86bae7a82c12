"""The results of verifications, and the comparison of stored rows with computed ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from deltawitness.cache.verify.compare import Comparison, compare
from deltawitness.plurals import count_of
from deltawitness.semconv import CacheScope
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.session.fingerprint.plan import fingerprint_of

if TYPE_CHECKING:
    from datafusion import DataFrame

__all__ = ["Verdict", "VerifyResult", "compare_rows", "result_of"]


class Verdict(StrEnum):
    """The result of a verification."""

    REPRODUCIBLE = "reproducible"
    """Recomputation gave the same rows."""
    DIFFERS = "differs"
    """Recomputation from the same inputs gave other rows."""
    CANNOT_TELL = "cannot_tell"
    """The rows cannot be recomputed from the same inputs."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The verification of one entry or write.

    Attributes:
        name: name of the entry, or of the table that was written.
        scope: view, dataset, artifact or metadata.
        version: the table version that holds the rows.
        verdict: the verdict.
        reason: why the verdict is `cannot_tell`.
        rows_kept: number of stored rows.
        rows_now: number of recomputed rows.
        columns: columns whose content differs; empty although the results differ if each column
            has the same values but the rows combine them differently.
        rounded: float columns that differ only by the order of summation.
        write_id: id of the write, when writes are verified.
    """

    name: str | None
    scope: CacheScope
    version: int | None
    verdict: Verdict
    reason: str | None = None
    rows_kept: int | None = None
    rows_now: int | None = None
    columns: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    write_id: str | None = None

    def __str__(self) -> str:
        head = f"{self.name} {self.version}: {self.verdict.value.replace('_', ' ')}"
        if self.reason is not None:
            return f"{head} ({self.reason})"
        if self.verdict is Verdict.REPRODUCIBLE:
            more = f", rounded: {', '.join(self.rounded)}" if self.rounded else ""
            return f"{head} ({_rows(self.rows_kept)}{more})"
        where = ", ".join(self.columns) or "the same values in other rows"
        return f"{head} ({where}; {_rows(self.rows_kept)} stored, {self.rows_now} recomputed)"


def _rows(count: int | None) -> str:
    return "unknown rows" if count is None else count_of(count, "row")


def compare_rows(
    unverified: VerifyResult,
    fingerprint: Fingerprint,
    stored: DataFrame,
    computed: DataFrame,
    *,
    needs_exact_text: bool = True,
) -> VerifyResult:
    """Return the result of comparing stored rows with the rows that a plan computes.

    Args:
        unverified: the result without a verdict.
        fingerprint: the fingerprint of the stored rows.
        stored: the stored rows.
        computed: the computed rows.
        needs_exact_text: whether the plan text must have all literals exactly.
    """
    result = result_of(unverified, compare(stored, computed))
    is_same = result.verdict is Verdict.REPRODUCIBLE
    reason = None if is_same else _nondeterminism(computed, fingerprint, needs_exact_text)
    if reason is None:
        return result
    return replace(result, verdict=Verdict.CANNOT_TELL, reason=reason)


def result_of(unverified: VerifyResult, found: Comparison) -> VerifyResult:
    """Return the result of a comparison.

    Args:
        unverified: the result without a verdict.
        found: the comparison.
    """
    return replace(
        unverified,
        verdict=Verdict.REPRODUCIBLE if found.is_same else Verdict.DIFFERS,
        rows_kept=found.stored,
        rows_now=found.computed,
        columns=found.differing,
        rounded=found.rounded,
    )


def _nondeterminism(frame: DataFrame, stored: Fingerprint, needs_exact_text: bool) -> str | None:
    """Return why a frame may give another result on each run; None if it does not."""
    versions = {each.name: each.version for each in stored.functions}
    now = fingerprint_of(
        frame, functions=versions, version=stored.version, needs_exact_text=needs_exact_text
    )
    return now.reason.partition(":")[0] if isinstance(now, NotCacheable) else None
