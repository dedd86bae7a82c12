"""The values of a run and of a cache context, which a write records and a process passes to its children."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.run_commits import WithCommits
from deltawitness.run_origin import NO_ORIGIN, RunOrigin
from deltawitness.semconv import CacheScope, Env

__all__ = ["NO_CACHE_CONTEXT", "RUN_ID_FORM", "CacheContext", "RunContext", "parse_scope"]

RUN_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""The allowed form of a run id."""


@dataclass(frozen=True, slots=True)
class RunContext(WithCommits):
    """One execution of a job.

    Attributes:
        run_id: UUIDv7 of the run, or the id from `DELTAWITNESS_RUN_ID`.
        job: name of the job.
        parent_run_id: id of the enclosing run; None for a run without one.
        started_at: nanoseconds since the Unix epoch.
        attributes: the caller's attributes of the run.
        traceparent: W3C trace context that the process was started with; None without one.
        is_joined: whether another process opened the run and this process participates in it.
        is_process: whether deltawitness opened the run around the entire process.
        force_sample: whether a tail sampler keeps the traces of the run regardless of their content.
        message: why the run writes, as the program states it.
        origin: where the run runs: scheduler, attempt, task, commit, image, link.
        is_implicit: whether the run was created for writes outside of any run, and not opened by the program.
        has_default_job: whether the job is only the name of the program.
    """

    run_id: str
    job: str
    parent_run_id: str | None = None
    started_at: int = field(default_factory=now_ns)
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    traceparent: str | None = None
    is_joined: bool = False
    is_process: bool = False
    force_sample: bool = False
    message: str | None = None
    origin: RunOrigin = NO_ORIGIN
    is_implicit: bool = False
    has_default_job: bool = False

    def __post_init__(self) -> None:
        """Accept the origin as a mapping, as which it is sent to other processes; hold the run's commits."""
        if isinstance(self.origin, Mapping):
            object.__setattr__(self, "origin", RunOrigin(**self.origin))
        self.run_commits()

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process belong to this run.

        >>> RunContext("r-1", "nightly").environment()
        {'DELTAWITNESS_RUN_ID': 'r-1', 'DELTAWITNESS_JOB': 'nightly'}
        """
        optional = {
            Env.FORCE_SAMPLE: "true" if self.force_sample else None,
            Env.MESSAGE: self.message,
            Env.IMPLICIT_RUN: self._implicit_text(),
        }
        given = {name.value: value for name, value in optional.items() if value}
        return {Env.RUN_ID.value: self.run_id, Env.JOB.value: self.job, **given}

    def _implicit_text(self) -> str | None:
        """Return the value of `DELTAWITNESS_IMPLICIT_RUN`: run id, what was not chosen, and job.

        The child compares id and job with its own, so that values that are set later count as chosen.
        """
        words = (("run", self.is_implicit), ("job", self.has_default_job))
        defaults = "+".join(word for word, is_default in words if is_default)
        return f"{self.run_id} {defaults} {self.job}" if defaults else None


@dataclass(frozen=True, slots=True)
class CacheContext:
    """Policy, scope, key and message of the writes inside a :func:`cache_context`."""

    policy: str | None = None
    scope: CacheScope | None = None
    key: str | None = None
    message: str | None = None


NO_CACHE_CONTEXT = CacheContext()


def parse_scope(scope: CacheScope | str) -> CacheScope:
    """Return `scope` as a :class:`CacheScope`.

    Raises:
        ConfigurationError: there is no such scope; the message lists the scopes.
    """
    try:
        return CacheScope(scope)
    except ValueError:
        msg = f"cache scope: expected one of {', '.join(CacheScope)}"
        raise ConfigurationError(msg) from None
