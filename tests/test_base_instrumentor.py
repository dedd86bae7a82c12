"""The base class of the instrumentors behaves as OpenTelemetry's."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap

import pytest
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from deltawitness import DataFusionInstrumentor, DeltaLakeInstrumentor
from deltawitness import instrumentation as instrumentation_module
from deltawitness.base_instrumentor import Instrumentor


def instrumentor_of(base, requirement="deltalake >= 1.0"):
    """Return an instrumentor of a new class of a base class; it lists its calls in `calls`."""

    class Sample(base):
        calls = ()

        def instrumentation_dependencies(self):
            return (requirement,)

        def _instrument(self, **kwargs):
            self.calls += (("instrument", kwargs),)
            if kwargs.get("fails"):
                raise RuntimeError("it fails")

        def _uninstrument(self, **kwargs):
            self.calls += (("uninstrument", kwargs),)

    return Sample()


BASES = pytest.mark.parametrize("base", [BaseInstrumentor, Instrumentor])


@pytest.mark.parametrize("cls", [DeltaLakeInstrumentor, DataFusionInstrumentor])
def test_an_instrumentor_is_one_of_opentelemetry(cls):
    """Programs check `isinstance` and `issubclass` against OpenTelemetry's class."""
    assert isinstance(cls(), BaseInstrumentor)
    assert issubclass(cls, BaseInstrumentor)
    assert cls() is cls()


@pytest.mark.slow
def test_an_instrumentor_is_one_of_opentelemetry_that_is_imported_later():
    """`instrument()` does not import OpenTelemetry's class, and is found instrumented by it later."""
    program = """
        import sys
        from deltawitness import DeltaLakeInstrumentor
        DeltaLakeInstrumentor().instrument()
        print("opentelemetry.instrumentation" in sys.modules)
        from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
        instrumentor = DeltaLakeInstrumentor()
        print(isinstance(instrumentor, BaseInstrumentor), instrumentor.is_instrumented_by_opentelemetry)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True", "True"], "")


@BASES
def test_instrumenting_twice_or_undoing_it_twice_is_logged(base, caplog):
    """The second call changes nothing."""
    instrumentor = instrumentor_of(base)
    instrumentor.instrument(a=1)
    instrumentor.instrument(a=2)
    assert instrumentor.is_instrumented_by_opentelemetry
    instrumentor.uninstrument(b=1)
    instrumentor.uninstrument(b=2)
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert instrumentor.calls == (("instrument", {"a": 1}), ("uninstrument", {"b": 1}))
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        (
            BaseInstrumentor.__module__,
            "WARNING",
            "Attempting to instrument while already instrumented",
        ),
        (
            BaseInstrumentor.__module__,
            "WARNING",
            "Attempting to uninstrument while already uninstrumented",
        ),
    ]


@BASES
def test_a_requirement_that_is_not_met_is_logged(base, caplog):
    """Nothing is instrumented, and the log line names the class and the requirement."""
    instrumentor = instrumentor_of(base, "deltalake < 1.0")
    instrumentor.instrument()
    assert (instrumentor.calls, instrumentor.is_instrumented_by_opentelemetry) == ((), False)
    (record,) = caplog.records
    assert (record.name, record.levelno) == (BaseInstrumentor.__module__, logging.ERROR)
    assert 'Sample only instruments "deltalake < 1.0"' in record.getMessage()


@BASES
def test_a_requirement_that_is_not_met_is_raised_for_opentelemetry_instrument(base):
    """`opentelemetry-instrument` catches the error and logs it."""
    instrumentor = instrumentor_of(base, "no-such-package")
    with pytest.raises(DependencyConflictError, match="no-such-package"):
        instrumentor.instrument(raise_exception_on_conflict=True)
    assert (instrumentor.calls, instrumentor.is_instrumented_by_opentelemetry) == ((), False)


@BASES
def test_the_check_of_requirements_can_be_skipped(base):
    """The keywords of the check do not reach `_instrument`."""
    instrumentor = instrumentor_of(base, "no-such-package")
    instrumentor.instrument(skip_dep_check=True, raise_exception_on_conflict=True)
    assert instrumentor.calls == (("instrument", {}),)


@BASES
def test_an_instrumentor_that_raises_is_not_instrumented(base):
    """The error reaches the caller, and a later call tries again."""
    instrumentor = instrumentor_of(base)
    with pytest.raises(RuntimeError, match="it fails"):
        instrumentor.instrument(fails=True)
    assert not instrumentor.is_instrumented_by_opentelemetry
    instrumentor.instrument()
    assert instrumentor.is_instrumented_by_opentelemetry


@pytest.mark.parametrize(
    ("version", "is_supported"),
    [("1.0.2", True), ("1.12.0", True), ("0.25.5", False), ("2.0.0", False), ("1.7.0rc1", None)],
)
def test_a_release_is_judged_as_opentelemetry_judges_it(version, is_supported, monkeypatch, caplog):
    """A supported final release needs no parser of requirements; any other goes through OpenTelemetry's."""
    from opentelemetry.instrumentation import dependencies

    monkeypatch.setattr(instrumentation_module, "engine_version", lambda: version)
    monkeypatch.setattr(dependencies, "version", lambda _: version)
    instrumentor = DeltaLakeInstrumentor()
    expected = dependencies.get_dependency_conflicts(instrumentor.instrumentation_dependencies())
    if is_supported is not None:
        assert (expected is None) == is_supported
    instrumentor.instrument()
    assert instrumentor.is_instrumented_by_opentelemetry == (expected is None)
    assert [record.levelname for record in caplog.records] == (
        [] if expected is None else ["ERROR"]
    )
