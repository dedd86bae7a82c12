"""Refuse writes without the run, job or message that `DELTAWITNESS_REQUIRE` names."""

from __future__ import annotations

from collections.abc import Collection

from deltawitness.exceptions import RequirementError
from deltawitness.run_context import RunContext
from deltawitness.semconv import Env
from deltawitness.settings import Requirement

__all__ = ["check_requirements"]

_HINTS = {
    Requirement.RUN: (
        f"open a run with deltawitness.run(...), start the program with `deltawitness run`, or set"
        f" {Env.RUN_ID}"
    ),
    Requirement.JOB: f"name the job with deltawitness.run(job), `deltawitness run --job` or {Env.JOB}",
    Requirement.MESSAGE: (
        f"give one with deltawitness.run(job, message=...), cache_context(message=...),"
        f" `deltawitness run --message` or {Env.MESSAGE}"
    ),
}


def check_requirements(required: Collection[str], run: RunContext, message: str | None) -> None:
    """Check that a write has the run, job and message that the settings require.

    Args:
        required: values of :class:`deltawitness.settings.Requirement`.
        run: the run of the write.
        message: the message of the write's cache context.

    Raises:
        RequirementError: the write lacks one of them; the error's text has the way to set it.
    """
    has = {
        Requirement.RUN: not run.is_implicit,
        Requirement.JOB: not run.has_default_job,
        Requirement.MESSAGE: bool(message or run.message),
    }
    for each in Requirement:
        if each in required and not has[each]:
            msg = f"{Env.REQUIRE} refuses this write, which has no {each}: {_HINTS[each]}"
            raise RequirementError(msg)
