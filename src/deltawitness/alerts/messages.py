"""The body of a request: alerts as JSON, as a message of Slack, or as a card of Microsoft Teams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from deltawitness.alerts.values import Alert, MessageFormat

__all__ = ["body_of"]

LISTED = 20
"""Maximum number of alerts that a message of Slack or Teams lists; JSON has all of them."""

_FORMAT = 1


def body_of(alerts: Sequence[Alert], shown_as: MessageFormat, key: str) -> str:
    """Return the body of a request, as JSON.

    Args:
        alerts: the alerts; at least one.
        shown_as: the format.
        key: the idempotency key, which the format `json` has as `id`.
    """
    match shown_as:
        case MessageFormat.JSON:
            content = _json(alerts, key)
        case MessageFormat.SLACK:
            content = {"text": "\n".join(map(_escaped_for_slack, _lines(alerts)))}
        case MessageFormat.TEAMS:
            content = _card(_lines(alerts))
    return json.dumps(content, default=datetime.isoformat)


def _json(alerts: Sequence[Alert], key: str) -> dict[str, Any]:
    listed = [{"id": each.id, **asdict(each)} for each in alerts]
    return {"kind": "deltawitness.notify", "format": _FORMAT, "id": key, "alerts": listed}


def _lines(alerts: Sequence[Alert]) -> list[str]:
    more = len(alerts) - LISTED
    texts = [f"{_SIGNS[each.kind.value]} {each.text}" for each in alerts[:LISTED]]
    return [*texts, *([f"and {more:,} more"] if more > 0 else [])]


_SIGNS = {
    "broken": "\N{LARGE RED CIRCLE}",
    "overdue": "\N{LARGE ORANGE CIRCLE}",
    "recovered": "\N{LARGE GREEN CIRCLE}",
}


def _escaped_for_slack(text: str) -> str:
    """Escape the characters by which Slack recognizes links and mentions.

    >>> _escaped_for_slack("<!channel> & <b>")
    '&lt;!channel&gt; &amp; &lt;b&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _card(lines: Sequence[str]) -> dict[str, Any]:
    """Return an adaptive card of text runs, which unlike text blocks have no Markdown."""
    blocks = [
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in lines
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}
