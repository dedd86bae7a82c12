"""The code of a function is replaced and restored, whatever the order of the calls."""

from __future__ import annotations

import inspect

from deltawitness.delta_rs.whole_calls import observe_whole_calls


def marked(mark):
    """Observe a function by adding a mark to its result."""

    def observing(original):
        return lambda *args, **kwargs: [mark, *original(*args, **kwargs)]

    return observing


def test_a_function_is_observed_once_and_restored():
    def plain(x, *, y=2):
        """Return both."""
        return [x, y]

    code, signature = plain.__code__, inspect.signature(plain)
    first = observe_whole_calls(plain, marked("first"))
    assert plain(1) == ["first", 1, 2]
    assert inspect.signature(plain) == signature
    second = observe_whole_calls(plain, marked("second"))
    assert plain(1, y=3) == ["second", 1, 3]
    first()
    assert plain(1) == ["second", 1, 2]
    for _ in range(2):
        second()
        assert (plain(1), plain.__code__, vars(plain)) == ([1, 2], code, {})


def test_what_is_no_plain_function_is_left_alone():
    outer = 1

    def closure():
        return [outer]

    for each in (closure, len):
        observe_whole_calls(each, marked("observed"))()
    assert closure() == [1]
