"""Errors of deltawitness are reported, and never raised in the program."""

from __future__ import annotations

import pytest

from deltawitness.internal_errors import call_guarded, error_counts, guard

PROGRAMS_OWN = [KeyboardInterrupt, SystemExit, GeneratorExit]


def fail(error):
    raise error


@pytest.mark.internal_errors
@pytest.mark.parametrize("error", [ValueError("bad"), StopIteration(), RuntimeError()])
def test_a_guard_reports_an_exception_of_its_block(error):
    with guard("seam"):
        fail(error)
    assert error_counts() == {("seam", type(error).__qualname__): 1}


@pytest.mark.internal_errors
def test_a_guarded_call_reports_an_exception():
    call_guarded("ledger", fail, ValueError("bad"))
    assert error_counts() == {("ledger", "ValueError"): 1}


@pytest.mark.parametrize("kind", PROGRAMS_OWN)
def test_an_interrupt_or_exit_propagates_unreported(kind):
    error = kind()
    with pytest.raises(kind) as raised, guard("seam"):
        fail(error)
    assert raised.value is error
    with pytest.raises(kind):
        call_guarded("seam", fail, error)
    assert error_counts() == {}


def test_a_guard_without_an_error_reports_nothing():
    calls = []
    with guard("seam"):
        calls.append("block")
    call_guarded("seam", calls.append, "call")
    assert calls == ["block", "call"]
    assert error_counts() == {}


@pytest.mark.internal_errors
def test_a_guard_leaves_the_exception_that_is_being_handled():
    """A guard in an except block does not replace the exception that the block raises again."""
    with pytest.raises(KeyError) as raised:
        try:
            fail(KeyError("of the program"))
        except KeyError:
            with guard("seam"):
                fail(ValueError("of deltawitness"))
            raise
    assert raised.value.__context__ is None
    assert error_counts() == {("seam", "ValueError"): 1}
