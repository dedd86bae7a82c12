"""Quote names and texts for SQL."""

from __future__ import annotations

__all__ = ["quote_identifier", "quote_literal"]


def quote_identifier(*parts: str) -> str:
    """Return a dotted name with each part quoted as a SQL identifier.

    >>> quote_identifier("lake", 'a"b')
    '"lake"."a""b"'
    """
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def quote_literal(text: str) -> str:
    """Return a text as a literal of SQL.

    >>> quote_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
