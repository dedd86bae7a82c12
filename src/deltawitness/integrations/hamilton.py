"""Apache Hamilton: a run for each execution of a graph, a span for each node in it.

Needs `apache-hamilton`: the extra of that name.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hamilton.lifecycle import GraphExecutionHook, NodeExecutionHook
from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.exceptions import ConfigurationError
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.internal_errors import report
from deltawitness.observe.observer import current_observer
from deltawitness.propagation import run_as_values
from deltawitness.run import (
    CacheContext,
    RunContext,
    current_cache_context,
    run,
    use_run,
)
from deltawitness.semconv import RUN_HAMILTON_ID
from deltawitness.telemetry.spans import parent_context

if TYPE_CHECKING:
    from hamilton.graph_types import HamiltonGraph
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

__all__ = ["DeltaWitnessAdapter"]

UNNAMED = "hamilton"
"""The job of a graph whose functions come from no module that has a name of its own."""

ENDED_KEPT = 64
"""Executions that are known after their end: a node that failed leaves others in a pool's queue."""


class DeltaWitnessAdapter(
    GraphExecutionHook,  # type: ignore[misc]  # Hamilton is untyped
    NodeExecutionHook,  # type: ignore[misc]  # as above
):
    """A lifecycle adapter by which each execution of a driver is a run.

    Delta writes inside a node belong to the run and are children of the node's span, in whatever
    thread or process the node is executed. An error of a node goes its way as it is; the node's
    span and the run tell of it. Neither the values that nodes take nor those that they return are
    looked at.

    Args:
        job: name of the job; the names of the graph's modules when None.
        attributes: facts about each run, as text.
        instrument: observe the Delta writes of the process from now on, where nothing does yet.

    Attributes:
        last_run: the run of the execution that began last; None before the first.

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
        with _guarded():
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
        """Close the run: its row is in the ledger, if one is kept, when the execution returns."""
        with _guarded():
            execution = self._executions.get(run_id)
            if execution is None or execution.opening is None:
                return
            execution.give_up_nodes()
            opening, execution.opening = execution.opening, None
            ended_by = _ended_by(error, execution.handled)
            try:
                opening.__exit__(
                    None if ended_by is None else type(ended_by),
                    ended_by,
                    None if ended_by is None else ended_by.__traceback__,
                )
            finally:
                self._keep_ended(run_id, execution)

    def _keep_ended(self, run_id: str, execution: _Execution) -> None:
        """Keep the run for nodes that a pool begins later: they only take part in it then."""
        execution.run = replace(execution.run, is_joined=True)
        self._ended.append(run_id)
        if len(self._ended) > ENDED_KEPT:
            self._executions.pop(self._ended.popleft(), None)

    # --- nodes -----------------------------------------------------------------------------------

    def run_before_node_execution(
        self, *, node_name: str, task_id: str | None, run_id: str, **_: Any
    ) -> None:
        """Open the node's span, in the run, also where a pool's thread knows of neither."""
        with _guarded():
            execution = self._executions.get(run_id)
            if execution is not None:
                execution.nodes[node_name, task_id] = _Node.entered(node_name, task_id, execution)

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
        with _guarded():
            execution = self._executions.get(run_id)
            if execution is not None:
                node = execution.nodes.pop((node_name, task_id), None)
                if node is not None:
                    node.leave(_ended_by(error, node.handled))

    # --- other processes ---------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the runs that are open: nodes may be executed in other processes."""
        return {
            "job": self._job,
            "attributes": self._attributes,
            "instrument": self._instrument,
            "executions": {
                run_id: (
                    run_as_values(known.run, trace.get_current_span(known.context)),
                    known.cache,
                )
                for run_id, known in list(self._executions.items())
                if known.opening is not None
            },
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take part in the runs of the process that this comes from."""
        self._job, self._attributes = state["job"], state["attributes"]
        self._instrument = state["instrument"]
        self.last_run, self._ended = None, deque()
        self._executions = {
            run_id: _Execution.elsewhere(values, cache)
            for run_id, (values, cache) in state["executions"].items()
        }
        with _guarded():
            self._observe()


@dataclass(slots=True)
class _Execution:
    """An execution of a graph.

    Attributes:
        run: its run.
        cache: the ambient policy, scope and key of where it was begun.
        context: the context in which the run's span is the current one.
        opening: what closes the run; None when it is over, or another process's.
        handled: the error that was being handled when it began.
        nodes: the nodes that are being executed here.
    """

    run: RunContext
    cache: CacheContext
    context: Context
    opening: AbstractContextManager[RunContext] | None = None
    handled: BaseException | None = None
    nodes: dict[tuple[str, str | None], _Node] = field(default_factory=dict)

    @classmethod
    def elsewhere(cls, values: Mapping[str, Any], cache: CacheContext) -> _Execution:
        """Return the execution as a process knows it that did not begin it."""
        attributes = MappingProxyType(values["attributes"])
        context = RunContext(**{**values, "attributes": attributes, "is_joined": True})
        return cls(context, cache, parent_context(context, otel_context.Context()))

    def give_up_nodes(self) -> None:
        """Leave the nodes that were entered here and not left: another adapter's hook has failed."""
        for key, node in list(self.nodes.items()):
            if node.thread == threading.get_ident():
                del self.nodes[key]
                node.leave(None)


@dataclass(slots=True)
class _Node:
    """A node that is being executed.

    Attributes:
        span: its span; None when nothing is observed.
        inside: what is left with it, in the thread that entered it.
        thread: that thread.
        handled: the error that was being handled when it began.
    """

    span: Span | None
    inside: ExitStack
    thread: int
    handled: BaseException | None

    @classmethod
    def entered(cls, name: str, task_id: str | None, execution: _Execution) -> _Node:
        """Enter the run and open the node's span here and now."""
        inside = ExitStack()
        inside.enter_context(use_run(execution.run, execution.cache))
        observer = current_observer()
        span = None
        if observer is not None:
            span = observer.steps.opened(name, task_id, execution.run, execution.context)
            token = otel_context.attach(trace.set_span_in_context(span, execution.context))
            inside.callback(otel_context.detach, token)
        return cls(span, inside, threading.get_ident(), sys.exception())

    def leave(self, error: BaseException | None) -> None:
        """Close its span, and be again where it was entered."""
        try:
            observer = current_observer()
            if self.span is not None and observer is not None:
                observer.steps.closed(self.span, error)
        finally:
            self.inside.close()


def _ended_by(error: BaseException | None, handled: BaseException | None) -> BaseException | None:
    """Return what ended an execution: Hamilton's hooks are not told of an interrupt, but see it."""
    now = sys.exception()
    return error if error is not None or now is handled else now


@contextmanager
def _guarded() -> Iterator[None]:
    """Let no error of ours into the execution."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("hamilton", error)


def _job_of(graph: HamiltonGraph) -> str:
    """Return the names of the modules whose functions a graph is made of."""
    modules = {
        function.__module__
        for node in graph.nodes
        for function in node.originating_functions or ()
        if hasattr(function, "__module__")
    }
    named = sorted(name for name in modules if name and not name.startswith(_NAMELESS))
    return "+".join(named) or UNNAMED


_NAMELESS = ("__main__", "temporary_module", "hamilton.")
"""Modules that say nothing of the job: the program itself, made on the fly, Hamilton's own."""
