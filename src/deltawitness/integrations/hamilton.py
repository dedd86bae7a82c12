"""Apache Hamilton: a run for each execution of a graph, and a span for each node.

Needs the package `apache-hamilton`, an extra of the same name.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hamilton.lifecycle import GraphExecutionHook, NodeExecutionHook
from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.exceptions import ConfigurationError
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.internal_errors import guard
from deltawitness.observe.observer import current_observer
from deltawitness.propagation import run_as_values
from deltawitness.run import current_cache_context, run, use_run
from deltawitness.run_context import CacheContext, RunContext
from deltawitness.semconv import RUN_HAMILTON_ID
from deltawitness.telemetry.spans import parent_context

if TYPE_CHECKING:
    from hamilton.graph_types import HamiltonGraph
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

__all__ = ["DeltaWitnessAdapter"]

UNNAMED = "hamilton"
"""Job name of a graph whose functions are all in modules without a meaningful name."""

MAX_ENDED = 64
"""Number of ended executions to remember: after a node failed, a pool may still execute queued nodes."""


class DeltaWitnessAdapter(
    GraphExecutionHook,  # type: ignore[misc]  # Hamilton is untyped
    NodeExecutionHook,  # type: ignore[misc]  # as above
):
    """A lifecycle adapter that opens a run for each execution of a driver.

    Delta writes in a node belong to the run and are children of the node's span, in any thread or process
    that executes the node. An error of a node is recorded on its span and its run, and propagates
    unchanged. The adapter does not read arguments or results of nodes.

    Args:
        job: name of the job; the names of the graph's modules when None.
        attributes: text attributes of each run.
        instrument: whether to instrument delta-rs, if it is not instrumented yet.

    Attributes:
        last_run: the run of the execution that started last; None before the first.

    Raises:
        ConfigurationError: the job name is empty, or a setting in the environment is invalid.

    >>> from hamilton import driver
    >>> adapter = DeltaWitnessAdapter("nightly", instrument=False)
    >>> made = driver.Builder().with_adapters(adapter).build()
    """

    def __init__(
        self,
        job: str | None = None,
        *,
        attributes: Mapping[str, str] | None = None,
        instrument: bool = True,
    ) -> None:
        if job == "":
            msg = "DeltaWitnessAdapter: the job name must not be empty"
            raise ConfigurationError(msg)
        self._job = job
        self._attributes = dict(attributes or {})
        self._instrument = instrument
        self.last_run: RunContext | None = None
        self._executions: dict[str, _Execution] = {}
        self._ended: deque[str] = deque()
        self._observe()

    def _observe(self) -> None:
        instrumentor = DeltaLakeInstrumentor()
        if self._instrument and not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()

    # --- executions ------------------------------------------------------------------------------

    def run_before_graph_execution(self, *, graph: HamiltonGraph, run_id: str, **_: Any) -> None:
        """Open the run."""
        with guard("hamilton"):
            opening = run(
                self._job or _job_of(graph),
                attributes={**self._attributes, RUN_HAMILTON_ID: run_id},
            )
            self.last_run = opening.__enter__()
            self._executions[run_id] = _Execution(
                run=self.last_run,
                cache=current_cache_context(),
                context=otel_context.get_current(),
                opening=opening,
                handled=sys.exception(),
            )

    def run_after_graph_execution(
        self, *, error: BaseException | None, run_id: str, **_: Any
    ) -> None:
        """Close the run. If there is a ledger, it has the run's row when the execution returns."""
        with guard("hamilton"):
            execution = self._executions.get(run_id)
            if execution is None or execution.opening is None:
                return
            execution.close_open_nodes()
            opening, execution.opening = execution.opening, None
            ended_by = _ended_by(error, execution.handled)
            try:
                opening.__exit__(
                    None if ended_by is None else type(ended_by),
                    ended_by,
                    None if ended_by is None else ended_by.__traceback__,
                )
            finally:
                self._remember_ended(run_id, execution)

    def _remember_ended(self, run_id: str, execution: _Execution) -> None:
        """Remember an ended run as a joined one, for nodes that a pool starts later."""
        execution.run = replace(execution.run, is_joined=True)
        self._ended.append(run_id)
        if len(self._ended) > MAX_ENDED:
            self._executions.pop(self._ended.popleft(), None)

    # --- nodes -----------------------------------------------------------------------------------

    def run_before_node_execution(
        self, *, node_name: str, task_id: str | None, run_id: str, **_: Any
    ) -> None:
        """Set the run and open the node's span, in any thread that executes the node."""
        with guard("hamilton"):
            execution = self._executions.get(run_id)
            if execution is not None:
                execution.nodes[node_name, task_id] = _Node.enter(node_name, task_id, execution)

    def run_after_node_execution(
        self,
        *,
        node_name: str,
        error: BaseException | None,
        task_id: str | None,
        run_id: str,
        **_: Any,
    ) -> None:
        """Close the node's span."""
        with guard("hamilton"):
            execution = self._executions.get(run_id)
            if execution is not None:
                node = execution.nodes.pop((node_name, task_id), None)
                if node is not None:
                    node.leave(_ended_by(error, node.handled))

    # --- other processes ---------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the open runs, because other processes may execute nodes."""
        return {
            "job": self._job,
            "attributes": self._attributes,
            "instrument": self._instrument,
            "executions": {
                run_id: (
                    run_as_values(execution.run, trace.get_current_span(execution.context)),
                    execution.cache,
                )
                for run_id, execution in list(self._executions.items())
                if execution.opening is not None
            },
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Join the open runs of the process that pickled the adapter."""
        self._job, self._attributes = state["job"], state["attributes"]
        self._instrument = state["instrument"]
        self.last_run, self._ended = None, deque()
        self._executions = {
            run_id: _Execution.joined(values, cache)
            for run_id, (values, cache) in state["executions"].items()
        }
        with guard("hamilton"):
            self._observe()


@dataclass(slots=True)
class _Execution:
    """An execution of a graph.

    Attributes:
        run: the run of the execution.
        cache: policy, scope and key of the caller that started the execution.
        context: the context in which the run's span is current.
        opening: the context manager to close the run; None if the run has ended or is another
            process's.
        handled: the exception that was being handled when the execution started.
        nodes: the nodes that this process is executing.
    """

    run: RunContext
    cache: CacheContext
    context: Context
    opening: AbstractContextManager[RunContext] | None = None
    handled: BaseException | None = None
    nodes: dict[tuple[str, str | None], _Node] = field(default_factory=dict)

    @classmethod
    def joined(cls, values: Mapping[str, Any], cache: CacheContext) -> _Execution:
        """Return an execution that another process has started."""
        attributes = MappingProxyType(values["attributes"])
        context = RunContext(**{**values, "attributes": attributes, "is_joined": True})
        return cls(context, cache, parent_context(context, otel_context.Context()))

    def close_open_nodes(self) -> None:
        """Close the nodes of this thread that are still open, because another adapter's hook has failed."""
        for key, node in list(self.nodes.items()):
            if node.thread == threading.get_ident():
                del self.nodes[key]
                node.leave(None)


@dataclass(slots=True)
class _Node:
    """A node that is being executed.

    Attributes:
        span: the node's span; None without an observer.
        exit_stack: resets the run and the trace context, in the thread that entered the node.
        thread: identifier of that thread.
        handled: the exception that was being handled when the node started.
    """

    span: Span | None
    exit_stack: ExitStack
    thread: int
    handled: BaseException | None

    @classmethod
    def enter(cls, name: str, task_id: str | None, execution: _Execution) -> _Node:
        """Set the run and open the node's span in the calling thread."""
        exit_stack = ExitStack()
        exit_stack.enter_context(use_run(execution.run, execution.cache))
        observer = current_observer()
        span = None
        if observer is not None:
            span = observer.steps.open(name, task_id, execution.run, execution.context)
            token = otel_context.attach(trace.set_span_in_context(span, execution.context))
            exit_stack.callback(otel_context.detach, token)
        return cls(span, exit_stack, threading.get_ident(), sys.exception())

    def leave(self, error: BaseException | None) -> None:
        """Close the node's span, and reset the run and the trace context."""
        try:
            observer = current_observer()
            if self.span is not None and observer is not None:
                observer.steps.close(self.span, error)
        finally:
            self.exit_stack.close()


def _ended_by(error: BaseException | None, handled: BaseException | None) -> BaseException | None:
    """Return the exception that ended an execution.

    Hamilton does not pass a `KeyboardInterrupt` to its hooks, but the hooks run while it is handled.
    """
    now = sys.exception()
    return error if error is not None or now is handled else now


def _job_of(graph: HamiltonGraph) -> str:
    """Return the names of the modules of a graph's functions, joined by `+`."""
    modules = {
        function.__module__
        for node in graph.nodes
        for function in node.originating_functions or ()
        if hasattr(function, "__module__")
    }
    named = sorted(name for name in modules if name and not name.startswith(_IGNORED_MODULES))
    return "+".join(named) or UNNAMED


_IGNORED_MODULES = ("__main__", "temporary_module", "hamilton.")
"""Prefixes of modules that do not name a job: the script, generated modules, Hamilton's modules."""
