"""The path of every write: open it, call the engine, record the result, deliver one event to each sink."""

from deltawitness.observe.observer import Observer, current_observer, flush

__all__ = ["Observer", "current_observer", "flush"]
