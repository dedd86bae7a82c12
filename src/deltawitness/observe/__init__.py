"""The one pipeline: a write is opened, handed to the engine, closed, and reported once."""

from deltawitness.observe.observer import Observer, current_observer, flush

__all__ = ["Observer", "current_observer", "flush"]
