"""The public function `report_html`: the report of a ledger as one HTML file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from deltawitness.answers.lookup import find_run_id
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.run_report import run_family
from deltawitness.html_report.content import ReportContent, ReportScope
from deltawitness.html_report.page import page
from deltawitness.html_report.reading import read_content
from deltawitness.html_report.verdict import is_ok, verdict_text
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["HtmlReport", "make_report", "report_html"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlReport:
    """A report and what it says in a line.

    Attributes:
        html: the text of the file; it is ASCII.
        verdict: the verdict.
        is_ok: whether nothing failed, is late or is worse than before.
        operations: number of operations that the report is about.
        left_out: number of operations that are only in the sums.
    """

    html: str
    verdict: str
    is_ok: bool
    operations: int
    left_out: int


def report_html(  # noqa: PLR0913 - keyword-only options
    *,
    run: str | None = None,
    job: str | None = None,
    since: datetime | None = None,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> HtmlReport:
    """Return a report of the ledger as one HTML file, which makes no request when it is shown.

    Args:
        run: only this run and its child runs: an id, or an unambiguous prefix of it.
        job: only this job.
        since: skips earlier operations and runs; a time without a time zone is in UTC.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such run, or several.
        ValueError: `run` is combined with `job` or `since`.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, report_html, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly"):
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2]}))
    ...     report = report_html(job="nightly", settings=settings)
    ...     DeltaLakeInstrumentor().uninstrument()
    >>> report.verdict
    'all is well: 1 run, 1 operation on 1 table'
    """
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return make_report(ledger, run=run, job=job, since=in_utc(since))


def make_report(
    ledger: LedgerListing,
    *,
    run: str | None = None,
    job: str | None = None,
    since: datetime | None = None,
    option: str = "",
) -> HtmlReport:
    """Return the report; arguments and errors as for :func:`report_html`.

    Args:
        ledger: the ledger to query.
        run: only this run and its child runs.
        job: only this job.
        since: skips earlier operations and runs, in UTC.
        option: precedes the name of an argument in error messages, such as `--`.
    """
    if run is not None and (job is not None or since is not None):
        msg = f"{option}run: cannot be combined with {option}job or {option}since"
        raise ValueError(msg)
    scope = ReportScope(job=job, since=since)
    if run is not None:
        run_id = find_run_id(ledger, run, f"{option}run: ")
        scope = ReportScope(run_id=run_id, family=tuple(run_family(ledger, run_id)))
    content = read_content(ledger, scope)
    return _report(content)


def _report(content: ReportContent) -> HtmlReport:
    html, content = page(content)
    return HtmlReport(
        html=html,
        verdict=verdict_text(content),
        is_ok=is_ok(content),
        operations=content.total,
        left_out=content.left_out,
    )
