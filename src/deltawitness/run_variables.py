"""Read a run and a cache context from environment variables, by which a parent passes them to a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import new_id
from deltawitness.run_context import NO_CACHE_CONTEXT, RUN_ID_FORM, CacheContext, RunContext
from deltawitness.run_origin import process_origin
from deltawitness.semconv import CacheScope, Env, parse_flag

__all__ = [
    "cache_context_from_environment",
    "has_text",
    "is_forced",
    "run_from_environment",
    "run_id_in",
    "text_in",
]


def cache_context_from_environment(environ: Mapping[str, str]) -> CacheContext:
    """Return the cache context that a parent process has set in environment variables.

    Raises:
        ConfigurationError: the scope is not a :class:`CacheScope`.
    """
    policy, scope, key = (
        environ.get(name) or None for name in (Env.CACHE_POLICY, Env.CACHE_SCOPE, Env.CACHE_KEY)
    )
    if not (policy or scope or key):
        return NO_CACHE_CONTEXT
    try:
        parsed = CacheScope(scope) if scope else None
    except ValueError:
        msg = f"{Env.CACHE_SCOPE}: expected one of {', '.join(CacheScope)}"
        raise ConfigurationError(msg) from None
    return CacheContext(policy or None, parsed, key or None)


def run_from_environment(environ: Mapping[str, str]) -> RunContext:
    """Return the implicit run of a process: of its parent, of its scheduler, or a new one.

    Raises:
        ConfigurationError: the variable of the run id or of the sampling flag is invalid.
    """
    run_id, origin = run_id_in(environ), process_origin()
    given = text_in(environ, Env.JOB)
    defaults = _defaults_in(environ, run_id, given)
    is_given = given is not None and "job" not in defaults
    job = given if is_given else origin.job or given
    return RunContext(
        run_id=run_id or new_id(),
        job=job or _program_name(),
        traceparent=environ.get(Env.TRACEPARENT) or None,
        is_joined=run_id is not None and environ.get(Env.REPLACED_PID) != str(os.getpid()),
        force_sample=is_forced(environ),
        message=text_in(environ, Env.MESSAGE),
        origin=origin,
        is_implicit=origin.run_id is None and (run_id is None or "run" in defaults),
        has_default_job=not is_given and origin.job is None,
    )


def text_in(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable's text; None if it is blank, so that blanks do not pass for a required value."""
    text = environ.get(name)
    return text if text is not None and has_text(text) else None


def has_text(text: str) -> bool:
    """Return whether a text has a printable character that is not a space."""
    return any(char.isprintable() and not char.isspace() for char in text)


def _defaults_in(environ: Mapping[str, str], run_id: str | None, job: str | None) -> frozenset[str]:
    """Return what of the parent's run was not chosen, of `run` and `job`; empty for another run.

    A job that is set for the child alone is chosen. It does not open a run.
    """
    marked_id, _, rest = environ.get(Env.IMPLICIT_RUN, "").partition(" ")
    defaults, _, marked_job = rest.partition(" ")
    if run_id != marked_id:
        return frozenset()
    return frozenset(defaults.split("+")) - (set() if job == marked_job else {"job"})


def run_id_in(environ: Mapping[str, str]) -> str | None:
    """Return the run id that the environment names; None without one.

    Raises:
        ConfigurationError: the id has other characters than the allowed ones, or is too long.
    """
    run_id = environ.get(Env.RUN_ID) or None
    if run_id is not None and not RUN_ID_FORM.fullmatch(run_id):
        msg = f"{Env.RUN_ID}: expected 1 to 128 letters, digits or '._:-'"
        raise ConfigurationError(msg)
    return run_id


def is_forced(environ: Mapping[str, str]) -> bool:
    """Return whether the environment asks a tail sampler to keep the traces of the run.

    Raises:
        ConfigurationError: the value of the variable is not a boolean word.
    """
    text = environ.get(Env.FORCE_SAMPLE, "")
    value = parse_flag(text)
    if value is None and text.strip():
        msg = f"{Env.FORCE_SAMPLE}: expected one of true, false"
        raise ConfigurationError(msg)
    return bool(value)


def _program_name() -> str:
    """Return the name of the program: of its module for `-m`, of its script, else `python`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name).removesuffix(".__main__")
    first = sys.argv[0] if sys.argv else ""
    if first == "-m" and first in sys.orig_argv[:-1]:  # before the module runs
        return sys.orig_argv[sys.orig_argv.index(first) + 1]
    program = os.path.splitext(os.path.basename(first))[0]  # noqa: PTH119, PTH122 - text, not a file
    return program if program and not program.startswith("-") else "python"
