"""The timeline as SVG: a lane for each table, a bar for each operation or part of the time."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deltawitness.html_report.content import LaneCount, ReportContent
from deltawitness.html_report.markup import Markup, element, join, visible
from deltawitness.html_report.sums import MAX_LANES
from deltawitness.html_report.values import (
    RESULTS,
    duration,
    operation_name,
    place_of,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import timestamp

__all__ = ["timeline"]

_WIDTH, _LEFT, _RIGHT, _TOP, _LANE = 1000, 170, 10, 26, 24
_LABEL_CHARACTERS = 22
_LEAST_WIDTH = 3.0
_TICKS = 5
_DAY = 86_400
_DAYS = 20
"""Days above which the times of the axis are dates."""

_SHORT = 20.0
"""Seconds below which the times of the axis have milliseconds."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """The time axis.

    Attributes:
        start: time at the left.
        end: time at the right.
    """

    start: dt.datetime
    end: dt.datetime

    @property
    def seconds(self) -> float:
        """The seconds between the left and the right."""
        return max((self.end - self.start).total_seconds(), 0.001)

    def at(self, time: dt.datetime) -> float:
        """Return the horizontal position of a time."""
        return self.after((time - self.start).total_seconds())

    def after(self, seconds: float) -> float:
        """Return the horizontal position of a time in seconds after the left."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(seconds / self.seconds, 0.0), 1.0)

    def width(self, seconds: float) -> float:
        """Return the width of a duration, at least that of a visible bar."""
        return max((_WIDTH - _LEFT - _RIGHT) * seconds / self.seconds, _LEAST_WIDTH)


def timeline(content: ReportContent) -> Markup:
    """Return the timeline, and what it leaves out."""
    axis = _axis(content)
    if axis is None:
        return element("p", "No operation in this time.")
    lanes = _lanes(content)
    height = _TOP + _LANE * max(len(lanes), 1) + 4
    counted = ", ".join(f"{count:,} {result}" for result, count in content.results.items())
    label = (
        f"Timeline of {count_of(len(lanes), 'table')} from {timestamp(axis.start)}"
        f" to {timestamp(axis.end)} UTC: {counted}. The table of events has the same operations."
    )
    bars = _counted_bars(content, axis, lanes) if content.lanes else _bars(content, axis, lanes)
    drawing = element(
        "svg",
        *_ticks(axis, height),
        *(_lane(name, number) for number, name in enumerate(lanes.values())),
        *_ghosts(content, axis, lanes),
        *bars,
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        aria_label=label,
        class_="timeline",
    )
    scrolled = element(
        "div", drawing, class_="scroll", tabindex="0", role="region", aria_label="Timeline"
    )
    return join(_legend(content), scrolled, *_notes(content, len(lanes)))


def _axis(content: ReportContent) -> _Axis | None:
    if content.first_time is None or content.last_time is None:
        return None
    ends = [
        each.event_time + dt.timedelta(milliseconds=each.duration_ms or 0)
        for each in content.events
        if each.event_time is not None
    ]
    start, end = content.first_time, max([content.last_time, *ends])
    if content.ghost_start is not None:
        runs = [run.start_time for run in content.runs if run.run_id == content.scope.run_id]
        start = min([start, *(time for time in runs if time is not None)])
        shift = start - content.ghost_start
        for each in content.ghosts:
            if each.event_time is not None:
                length = dt.timedelta(milliseconds=each.duration_ms or 0)
                end = max(end, each.event_time + length + shift)
    return _Axis(start, end)


def _lanes(content: ReportContent) -> dict[str, str]:
    """Return the names of the tables that have a lane, by place, in the order of the report."""
    return {table.place: table.name for table in content.tables[:MAX_LANES]}


def _ticks(axis: _Axis, height: float) -> Iterator[Markup]:
    is_long, is_days = axis.seconds > _DAYS * _DAY, axis.seconds > _DAY
    for number in range(_TICKS):
        seconds = axis.seconds * number / (_TICKS - 1)
        x = axis.after(seconds)
        time = axis.start + dt.timedelta(seconds=seconds)
        text = time.strftime(
            "%Y-%m-%d" if is_long else "%m-%d %H:%M" if is_days else "%m-%d %H:%M:%S"
        )
        if axis.seconds < _SHORT:
            text = f"{time:%H:%M:%S}.{time.microsecond // 1000:03}"
        anchor = "start" if number == 0 else "end" if number == _TICKS - 1 else "middle"
        yield element("text", text, x=f"{x:.1f}", y=14, text_anchor=anchor, class_="tick")
        yield element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=20, y2=height, class_="grid")


def _lane(name: str, number: int) -> Markup:
    y = _TOP + number * _LANE
    shown = visible(name, None)
    if len(shown) > _LABEL_CHARACTERS:
        shown = shown[: _LABEL_CHARACTERS - 1] + "…"
    return join(
        element("text", shown, x=4, y=y + 16, class_="lane", unicode_bidi="isolate"),
        element("line", x1=0, x2=_WIDTH, y1=y + _LANE, y2=y + _LANE, class_="grid"),
    )


def _bars(content: ReportContent, axis: _Axis, lanes: dict[str, str]) -> Iterator[Markup]:
    """Yield a bar for each operation; failed ones last, so that no other covers them."""
    numbers = {place: number for number, place in enumerate(lanes)}
    failed = [row for row in content.events if row.result == "error"]
    others = [row for row in content.events if row.result != "error"]
    for row in [*others, *failed]:
        number = numbers.get(place_of(row) or "")
        if number is None or row.event_time is None:
            continue
        seconds = (row.duration_ms or 0) / 1000
        version = "" if row.version is None else f"@{row.version}"
        error = f": {row.error_type}, landed {row.landed}" if row.result == "error" else ""
        title = (
            f"{visible(lanes[place_of(row) or ''], 80)}{version} {operation_name(row)}"
            f" {row.result}{error}, {timestamp(row.event_time)}, {duration(seconds)}"
        )
        yield _bar(
            axis.at(row.event_time), axis.width(seconds), number, row.result, title, row.run_id
        )


def _counted_bars(content: ReportContent, axis: _Axis, lanes: dict[str, str]) -> Iterator[Markup]:
    """Yield a bar for each part of the time in which a table has operations, in the colour of the worst."""
    numbers = {place: number for number, place in enumerate(lanes)}
    found: dict[tuple[str, int], list[LaneCount]] = defaultdict(list)
    for count in content.lanes:
        found[count.place, count.part].append(count)
    seconds = axis.seconds / content.parts
    for (place, part), counts in found.items():
        results = {count.result: count.count for count in counts}
        worst = "error" if "error" in results else max(results, key=lambda each: results[each])
        counted = ", ".join(f"{count:,} {result}" for result, count in results.items())
        time = timestamp(axis.start + dt.timedelta(seconds=part * seconds))
        title = f"{visible(lanes[place], 80)} from {time} for {duration(seconds)}: {counted}"
        width = axis.width(seconds) - 0.5
        yield _bar(axis.after(part * seconds), width, numbers[place], worst, title, None)


def _bar(  # noqa: PLR0913, PLR0917 - the parts of one bar
    x: float, width: float, lane: int, result: str | None, title: str, run_id: str | None
) -> Markup:
    name = result if result in RESULTS else "unknown"
    inset = (
        2 if name == "error" else 6
    )  # a failed operation is also taller: colour alone is not enough
    return element(
        "rect",
        element("title", title),
        x=f"{min(x, _WIDTH - _RIGHT - _LEAST_WIDTH):.1f}",
        y=_TOP + lane * _LANE + inset,
        width=f"{width:.1f}",
        height=_LANE - 2 * inset,
        class_=f"bar r-{name}",
        data_run=run_id,
    )


def _ghosts(content: ReportContent, axis: _Axis, lanes: dict[str, str]) -> Iterator[Markup]:
    """Yield an outline for each operation of the job's previous run, as if it had begun with this run."""
    numbers = {place: number for number, place in enumerate(lanes)}
    for row in content.ghosts:
        number = numbers.get(place_of(row) or "")
        if number is None or row.event_time is None or content.ghost_start is None:
            continue
        seconds = (row.duration_ms or 0) / 1000
        title = f"previous run: {operation_name(row)} {row.result}, {duration(seconds)}"
        yield element(
            "rect",
            element("title", title),
            x=f"{axis.after((row.event_time - content.ghost_start).total_seconds()):.1f}",
            y=_TOP + number * _LANE + 3,
            width=f"{axis.width(seconds):.1f}",
            height=_LANE - 6,
            class_="ghost",
        )


def _legend(content: ReportContent) -> Markup:
    def item(name: str, text: str) -> Markup:
        return element("span", element("span", class_=f"key r-{name}"), text)

    names = [name for name in RESULTS if name in content.results]
    ghost = [element("span", element("span", class_="key ghost-key"), "previous run of the job")]
    return element(
        "p",
        *(item(name, name) for name in names),
        *(ghost if content.ghosts else []),
        class_="legend",
    )


def _notes(content: ReportContent, lanes: int) -> Iterable[Markup]:
    notes: list[str] = []
    hidden = len(content.tables) - lanes
    if hidden > 0:
        notes.append(f"{count_of(hidden, 'more table')} without a lane: see Tables.")
    if content.lanes:
        notes.append(
            f"{content.total:,} operations are too many for a bar each: a bar shows the operations in"
            f" 1/{content.parts} of the time, in the colour of an error if there is one."
        )
    return _paragraphs(notes)


def _paragraphs(notes: Sequence[str]) -> list[Markup]:
    return [element("p", note, class_="note") for note in notes]
