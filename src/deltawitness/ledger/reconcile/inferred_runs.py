"""Infer the runs of commits without our metadata, from the engine's keys in the commits.

A run has one origin: a run of a job, an update of a pipeline, a job, a notebook, a cluster, or else the
engine's name and version. An origin that names one execution is one run. Any other origin is one run
until it makes no commit for a time, the gap. Many programs have the same engine, so a run that is inferred from
its name alone has the commits of one table.

The id of a run is a hash of its origin and, unless the origin names one execution, of its first commit.
So the same logs have the same runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from deltawitness.commit.reader import CommitMetadata
from deltawitness.ledger.reconcile.log_reader import Commit, LogRead
from deltawitness.locations import last_segment
from deltawitness.redaction import redact_label

__all__ = ["GAP", "InferredRun", "infer_runs"]

GAP = timedelta(minutes=30)
"""Time without a commit after which the next commit of the same origin belongs to another run."""

MAX_TRANSACTIONS = 20
"""Maximum number of transaction ids in the attributes of a run."""

ENGINE_LENGTH = 200
"""Maximum characters of an engine's name."""

_NAMESPACE = UUID("6f1d2f0e-5a43-5c1e-9d0b-0a6f3a3c5f2e")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InferredRun:
    """A run that is inferred from commits.

    Attributes:
        run_id: its id.
        job: name or id of its job, pipeline or notebook; None if the commits name none.
        columns: further columns of its row.
    """

    run_id: str
    job: str | None
    columns: Row = field(default_factory=dict)


class _Origin(NamedTuple):
    """What made a commit.

    Attributes:
        kind: what the run is inferred from.
        key: identifies the origin, with its kind.
        is_execution: whether it is one execution, and not something that may run again.
    """

    kind: str
    key: tuple[str, ...]
    is_execution: bool = False


class _Placed(NamedTuple):
    """A commit with its time in milliseconds and the URI of its table."""

    time: int
    uri: str
    commit: Commit


def infer_runs(logs: Iterable[LogRead], gap: timedelta = GAP) -> dict[str, InferredRun]:
    """Return the run of each commit without our metadata, by the write id of its row.

    Args:
        logs: logs that were read from their start, so that the first commit of each run is known.
        gap: time without a commit after which a run has ended.
    """
    groups: dict[_Origin, list[_Placed]] = {}
    for log in logs:
        for placed in _placed(log):
            groups.setdefault(_origin_of(placed), []).append(placed)
    runs: dict[str, InferredRun] = {}
    for origin, members in groups.items():
        for part in _parts(origin, sorted(members, key=_order), gap):
            run = _run_of(origin, part)
            runs |= {placed.commit.row_id: run for placed in part}
    return runs


def _placed(log: LogRead) -> Iterator[_Placed]:
    """Yield the foreign commits of a log; one without a time has that of the commit before it."""
    time = 0
    for commit in log.commits:
        time = time if commit.time is None else commit.time
        if not commit.is_witnessed:
            yield _Placed(time, log.target.uri, commit)


def _order(placed: _Placed) -> tuple[int, str, int]:
    return placed.time, placed.uri, placed.commit.version


def _parts(origin: _Origin, members: list[_Placed], gap: timedelta) -> Iterator[list[_Placed]]:
    """Split the commits of an origin, in the order of their times, into runs."""
    longest = gap / timedelta(milliseconds=1)
    part: list[_Placed] = []
    for placed in members:
        if part and not origin.is_execution and placed.time - part[-1].time > longest:
            yield part
            part = []
        part.append(placed)
    yield part


# --- origins -----------------------------------------------------------------------------------------


def _origin_of(placed: _Placed) -> _Origin:
    info = placed.commit.info
    job, parameters = _mapping(info, "job"), info.operation_parameters
    cluster = _plain(info.origin.get("clusterId")) or ""
    job_id = _job_id(job)
    if run_id := _job_run_id(job):
        return _Origin("job run", (job_id or "", run_id), is_execution=True)
    if update := _plain(parameters.get("updateId")):
        pipeline = _plain(parameters.get("pipelineId")) or ""
        return _Origin("pipeline update", (pipeline, update), is_execution=True)
    if job_id:
        return _Origin("job", (job_id, cluster))
    if notebook := _plain(_mapping(info, "notebook").get("notebookId")):
        return _Origin("notebook", (notebook, cluster))
    if cluster:
        return _Origin("cluster", (cluster,))
    return _Origin("engine", (info.engine_info or "", placed.uri))


def _job_id(job: Row) -> str | None:
    return _plain(job.get("jobId")) or _plain(job.get("jobName"))


def _job_run_id(job: Row) -> str | None:
    return _plain(job.get("jobRunId")) or _plain(job.get("runId"))


def _mapping(info: CommitMetadata, name: str) -> Row:
    value = info.origin.get(name)
    return value if isinstance(value, dict) else {}


def _plain(value: object) -> str | None:
    """Return an id as text; None for an empty one and for a value of another type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.encode("utf-8", "replace").decode() if value and isinstance(value, str) else None


# --- runs --------------------------------------------------------------------------------------------


def _run_of(origin: _Origin, part: Sequence[_Placed]) -> InferredRun:
    first = part[0].commit
    identity = (origin.kind, *origin.key, *(() if origin.is_execution else (first.row_id,)))
    infos = [placed.commit.info for placed in part]
    job = _first(_job_name(info) for info in infos)
    engine = first.info.engine_info or ""
    return InferredRun(
        run_id=str(uuid5(_NAMESPACE, "\0".join(identity).encode("utf-8", "replace").decode())),
        job=job,
        columns={
            "system": "databricks" if engine.startswith("Databricks") else None,
            "pipeline": job,
            "pipeline_run_id": _label(origin.key[1]) if origin.is_execution else None,
            "attributes": _attributes(origin, infos),
        },
    )


def _job_name(info: CommitMetadata) -> str | None:
    job, notebook = _mapping(info, "job"), _mapping(info, "notebook")
    path = _plain(notebook.get("notebookPath"))  # its folder may name a user
    return _label(
        _plain(job.get("jobName"))
        or _job_id(job)
        or _plain(info.operation_parameters.get("pipelineId"))
        or (path and last_segment(path))
        or _plain(notebook.get("notebookId"))
    )


def _attributes(origin: _Origin, infos: Sequence[CommitMetadata]) -> list[dict[str, str]]:
    transactions = dict.fromkeys(filter(None, (_plain(i.origin.get("txnId")) for i in infos)))
    found = {
        "inferred_from": origin.kind,
        "engine": (_plain(infos[0].engine_info) or "")[:ENGINE_LENGTH],
        "job_id": _first(_label(_job_id(_mapping(info, "job"))) for info in infos),
        "notebook_id": _first(
            _label(_plain(_mapping(info, "notebook").get("notebookId"))) for info in infos
        ),
        "cluster_id": _first(_label(_plain(info.origin.get("clusterId"))) for info in infos),
        "transactions": ", ".join(filter(None, map(_label, [*transactions][:MAX_TRANSACTIONS]))),
    }
    return [{"name": name, "value": value} for name, value in found.items() if value]


def _label(text: str | None) -> str | None:
    return redact_label(text) if text else None


def _first(values: Iterable[str | None]) -> str | None:
    return next(filter(None, values), None)
