"""The one pipeline: a write is opened, handed to the engine, closed, and reported once."""

from deltawitness.observe.observer import Observer, flush, observer

__all__ = ["Observer", "flush", "observer"]
