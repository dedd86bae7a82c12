"""The text of a description of this installation: one page for a bug report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from deltawitness.delta_rs.seam_states import SeamState
from deltawitness.installation.model import SettingSource
from deltawitness.plurals import count_of

if TYPE_CHECKING:
    from deltawitness.installation.model import InfoResult, LedgerInfo, SettingInfo

__all__ = ["page_of"]

MISSING = "not installed"


def page_of(result: InfoResult) -> str:
    """Return the text of a description: a section for each part, with indented lines."""
    sections: dict[str, Iterable[str]] = {
        "versions": _pairs(result.versions),
        "platform": _pairs(result.platform),
        "instrumentation": _pairs(result.instrumentation),
        "seams": _seams(result),
        "settings": _settings(result),
        "variables": _pairs(result.variables),
        "exporters": _pairs({name: _states(found) for name, found in result.exporters.items()}),
        "extras": _pairs({name: _packages(found) for name, found in result.extras.items()}),
        "ledger": () if result.ledger is None else _ledger(result.ledger),
    }
    return "\n".join(
        line for name, lines in sections.items() for line in _section(name, lines, result.problems)
    )


def _section(name: str, lines: Iterable[str], problems: Mapping[str, str]) -> Iterator[str]:
    yield f"{name}:"
    problem = problems.get(name)
    if problem is not None:
        yield f"  cannot be read: {problem}"
        return
    found = list(lines)
    yield from (f"  {line}" for line in found or ["none"])


def _pairs(values: Mapping[str, str | None]) -> Iterator[str]:
    """Yield a line for each pair, with the values in one column."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        yield f"{name:<{width}}  {MISSING if value is None else value}"


def _states(found: Mapping[str, str]) -> str:
    """Return the exporters of a signal, in brackets what is not merely installed."""
    shown = (name if state == "installed" else f"{name} ({state})" for name, state in found.items())
    return ", ".join(shown) or "none"


def _packages(found: Mapping[str, str | None]) -> str:
    missing = [name for name, version in found.items() if version is None]
    return f"missing: {', '.join(missing)}" if missing else "installed"


def _seams(result: InfoResult) -> Iterator[str]:
    """Yield the number of seams, and a line for each that is off."""
    on = [seam for seam in result.seams if seam.state is SeamState.ON]
    yield f"{len(on)} of {len(result.seams)} on"
    yield from _pairs(
        {
            seam.name: f"{seam.state.value}: {seam.reason}"
            for seam in result.seams
            if seam.state is not SeamState.ON
        }
    )


def _settings(result: InfoResult) -> Iterator[str]:
    """Yield a line for each setting that something sets, and the number of the others."""
    chosen = [each for each in result.settings if each.source is not SettingSource.DEFAULT]
    yield from _pairs({each.variable: _value(each) for each in chosen})
    yield f"{len(result.settings) - len(chosen)} of {len(result.settings)} have their default"


def _value(setting: SettingInfo) -> str:
    problem = (
        None if setting.problem is None else setting.problem.removeprefix(f"{setting.variable}: ")
    )
    return f"{problem or setting.value} ({setting.source.value})"


def _ledger(ledger: LedgerInfo) -> Iterator[str]:
    facts = {
        "root": f"{ledger.kind} {ledger.root or ''}".strip(),
        "enabled": "yes" if ledger.is_enabled else "no",
        "tables": "not read" if ledger.tables is None else ", ".join(ledger.tables) or "none",
        "spools": f"{ledger.spools} ({count_of(ledger.spool_bytes, 'byte')})",
        "segments not drained": str(ledger.segments),
    }
    if ledger.oldest is not None:
        facts["oldest segment"] = ledger.oldest.strftime("%Y-%m-%d %H:%M:%S UTC")
    yield from _pairs(facts)
