"""Propagate the run, the cache context and the trace context to threads and processes.

Context variables do not reach a new thread, a child process, or a worker that an earlier caller started.
"""

from deltawitness.propagation.environment import run_environment
from deltawitness.propagation.install import Propagation
from deltawitness.propagation.processes import SESSIONS, run_as_values

__all__ = ["SESSIONS", "Propagation", "run_as_values", "run_environment"]
