"""Texts from outside stay texts in HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawitness.html_report.graph_drawing import levels
from deltawitness.html_report.markup import Markup, element, isolated, join, visible
from deltawitness.html_report.sparkline import sparkline
from deltawitness.html_report.values import duration


class Parsed(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
@settings(max_examples=50)
@given(st.text("<>&\"'/=!-ab \x00\u202e\u05e9", max_size=12), st.text(max_size=12))
def test_any_text_is_text_and_any_attribute_is_one_attribute(text, value):
    """Markup in a text makes no element, and quotes in a value end no attribute."""
    parsed = Parsed(element("p", text, title=value))
    assert parsed.elements == [("p", {"title": visible(value, None)})]
    assert parsed.text == visible(text, None)


@pytest.mark.slow
@given(st.text(alphabet=st.characters(categories=("Cc", "Cf", "Cs", "Lo", "Lu")), max_size=40))
def test_no_invisible_or_reversing_character_is_left(text):
    """Control characters and marks of direction are shown as escapes; the text can be encoded."""
    shown = visible(text)
    assert not set(shown) & {"\x00", "\x1b", "\u202e", "\u2066", "\u200f", "\u2028"}
    shown.encode()


def test_a_long_text_is_cut_and_says_how_long_it_was():
    assert visible("z" * 10_000).endswith("… (10,000 characters)")
    assert len(visible("\x00" * 10_000)) < 2_000


def test_markup_is_not_escaped_twice():
    assert isolated("<b>") == "<bdi>&lt;b&gt;</bdi>"
    assert join(isolated("x"), "&") == "<bdi>x</bdi>&amp;"
    assert isinstance(join(), Markup)


def test_attributes_without_a_value_are_left_out():
    assert element("input", hidden=True, value=None, disabled=False) == "<input hidden/>"


def test_each_table_is_to_the_right_of_its_inputs_and_a_circle_ends():
    """Without circles each edge goes to the right; with them each table still has a column."""
    assert levels([("b", "c"), ("a", "b"), ("a", "c")]) == {"b": 1, "c": 2, "a": 0}
    assert set(levels([("a", "b"), ("b", "a"), ("b", "c")])) == {"a", "b", "c"}


def test_a_line_of_equal_values_is_drawn_and_one_of_a_single_value_is_not():
    assert "polyline" in sparkline([3.0, 3.0], "rows")
    assert not sparkline([3.0], "rows")


def test_durations_have_the_largest_unit_of_at_least_one():
    assert [duration(each) for each in (0.5, 59.0, 90.0, 90_000.0, 200_000.0)] == [
        "500 ms",
        "59.0 s",
        "1.5 min",
        "25.0 h",
        "2.3 d",
    ]
