"""The public function `live`: what the processes of a ledger do now."""

from __future__ import annotations

import os

from deltawitness.answers.live.follow import LiveFollower
from deltawitness.answers.live.values import LiveReport
from deltawitness.answers.questions import settings_with
from deltawitness.forks import mark_delta_rs_used
from deltawitness.settings import Settings

__all__ = ["live"]


def live(
    *,
    limit: int = 20,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> LiveReport:
    """Return what the processes of a ledger do now: running writes, finished writes, dead processes.

    Only processes of this machine are seen before their writes are in the ledger. Nothing is drained, and
    a ledger that does not exist is an empty one.

    Args:
        limit: maximum number of finished operations.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        ValueError: the limit is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage, or the folder of the spools, cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, live, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly"):
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2]}))
    ...     report = live(settings=settings)
    ...     for write in report.writes:
    ...         print(write.job, write.table, write.operation, write.result)
    ...     print(report.running)
    ...     DeltaLakeInstrumentor().uninstrument()
    nightly flights WRITE write
    ()
    """
    if limit < 0:
        msg = "limit: expected 0 or more"
        raise ValueError(msg)
    chosen = settings_with(root, storage_options, settings)
    mark_delta_rs_used()  # the program called a function that needs delta-rs
    return LiveFollower(chosen, limit).start()
