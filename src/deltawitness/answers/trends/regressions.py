"""The public function `regressions`: jobs that are worse than before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.trends.past import PastRun, now, past_runs
from deltawitness.answers.trends.statistics import Typical, is_common
from deltawitness.answers.trends.values import Regression, RegressionKind, RegressionResult
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["MIN_SECONDS", "read_regressions", "regressions"]

MIN_SECONDS = 1.0
"""Seconds by which a run must be slower than the median."""

_FACTOR = 2.0
"""Number of times that a run must be slower than the median; or smaller."""

_LEAST_RUNS = 5
"""Number of earlier runs with the status `ok` from which on a run can be slower or smaller."""

_FLAKY_RUNS = 20
"""Number of the last runs in which a flaky job fails and recovers twice."""

_FLAKY_TIMES = 2


def regressions(  # noqa: PLR0913 - keyword-only options
    job: str | None = None,
    *,
    at: datetime | None = None,
    min_seconds: float = MIN_SECONDS,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> RegressionResult:
    """Return the jobs whose last runs failed, and those that are flaky, slower or smaller than before.

    Each job is compared with its own last 60 finished runs. A run can be slower or smaller after 5 earlier runs
    with the status `ok`, and is not if a tenth of them took as long, or changed as few rows.

    Args:
        job: only this job.
        at: the time for which the question is answered; now when None. UTC without a time zone.
        min_seconds: seconds by which a run must be slower than the median.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no finished run of the job.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import tempfile
    >>> from contextlib import suppress
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, regressions, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("load"):
    ...         pass
    ...     with suppress(OSError), run("load"):
    ...         raise OSError
    ...     found = regressions(settings=settings)
    ...     DeltaLakeInstrumentor().uninstrument()
    >>> (broken,) = found.regressions
    >>> broken.kind.value, broken.job, broken.error_type
    ('broken', 'load', 'OSError')
    """
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_regressions(ledger, job, at=in_utc(at), min_seconds=min_seconds)


def read_regressions(
    ledger: LedgerListing,
    job: str | None = None,
    *,
    at: datetime | None = None,
    min_seconds: float = MIN_SECONDS,
) -> RegressionResult:
    """Return the jobs that are worse than before; arguments and errors as for :func:`regressions`.

    Args:
        ledger: the ledger to query.
        job: only this job.
        at: the time for which the question is answered; now when None.
        min_seconds: seconds by which a run must be slower than the median.
    """
    time = at or now()
    jobs = dict(past_runs(ledger, time, job))
    if job is not None and not jobs:
        msg = f"the ledger has no finished run of the job {job!r}"
        raise LedgerLookupError(msg)
    found = [each for name, runs in jobs.items() for each in _of_job(name, runs, min_seconds)]
    kinds = list(RegressionKind)
    return RegressionResult(
        at=time,
        jobs=len(jobs),
        regressions=tuple(sorted(found, key=lambda each: (kinds.index(each.kind), each.job))),
    )


def _of_job(job: str, runs: Sequence[PastRun], min_seconds: float) -> Iterator[Regression]:
    failing = _failing(job, runs)
    if failing is not None:
        yield failing
    last = runs[-1]
    good = [each for each in runs[:-1] if each.is_ok]
    if not last.is_ok or len(good) < _LEAST_RUNS:
        return
    times = [each.seconds for each in good if each.seconds is not None]
    if last.seconds is not None and len(times) >= _LEAST_RUNS:
        typical = Typical.of(times).center
        limit = max(_FACTOR * typical, typical + min_seconds)
        alike = sum(each >= last.seconds / 1.25 for each in times)
        if last.seconds > limit and not is_common(alike, len(times)):
            yield _than_before(RegressionKind.SLOWER, job, last, good, last.seconds, typical)
    counts = [each.rows for each in good]
    typical = Typical.of(counts).center
    alike = sum(each <= last.rows * 1.25 for each in counts)
    if last.rows < typical / _FACTOR and not is_common(alike, len(counts)) and not last.hits:
        yield _than_before(RegressionKind.SMALLER, job, last, good, last.rows, typical)


def _than_before(  # noqa: PLR0913, PLR0917 - the values of a result
    kind: RegressionKind,
    job: str,
    last: PastRun,
    good: Sequence[PastRun],
    value: float,
    typical: float,
) -> Regression:
    return Regression(
        kind=kind,
        job=job,
        run_id=last.run_id,
        time=last.start_time,
        value=value,
        typical=typical,
        history=len(good),
        good_run_id=good[-1].run_id,
        code_version=last.code_version,
        good_code_version=good[-1].code_version,
    )


def _failing(job: str, runs: Sequence[PastRun]) -> Regression | None:
    """Return the regression of a job that is broken or flaky."""
    streaks = [list(same) for _, same in groupby(runs, key=lambda each: each.is_ok)]
    recent = [list(same) for _, same in groupby(runs[-_FLAKY_RUNS:], key=lambda each: each.is_ok)]
    last = streaks[-1]
    recovered = [streak for streak in recent[:-1] if not streak[0].is_ok]
    is_flaky = len(recovered) >= _FLAKY_TIMES
    is_failing = not last[0].is_ok and len(streaks) > 1
    is_longer = is_failing and len(last) > max(map(len, recovered), default=0)
    if is_failing and (is_longer or not is_flaky):
        good = streaks[-2][-1]
        return _broken(RegressionKind.BROKEN, job, last, good, len(last), len(runs))
    if is_flaky:
        failed = [each for streak in recent for each in streak if not each.is_ok]
        good = next(each for each in reversed(runs) if each.is_ok)
        return _broken(
            RegressionKind.FLAKY, job, failed, good, len(failed), len(runs[-_FLAKY_RUNS:])
        )
    return None


def _broken(  # noqa: PLR0913, PLR0917 - the values of a result
    kind: RegressionKind,
    job: str,
    failed: Sequence[PastRun],
    good: PastRun,
    count: int,
    runs: int,
) -> Regression:
    last = failed[-1]
    return Regression(
        kind=kind,
        job=job,
        run_id=last.run_id,
        time=failed[0].start_time,
        value=count,
        typical=runs,
        history=runs,
        error_type=last.error_type,
        good_run_id=good.run_id,
        code_version=last.code_version,
        good_code_version=good.code_version,
    )
