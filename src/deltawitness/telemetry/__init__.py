"""Spans, metrics and log records. Those of a write are made from its redacted event alone."""
