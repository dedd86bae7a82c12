"""Install and uninstall the patches of delta-rs: for all writes, or for writes inside proxies only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from deltawitness.clones.redirect import install_redirection
from deltawitness.delta_rs.patches import DeltaLakeSeams, import_seams
from deltawitness.expectations import expect, load_expectations, set_checked
from deltawitness.forks import reset_in_child
from deltawitness.observe import Observer
from deltawitness.observe.write_context import current_write_context
from deltawitness.run import is_suppressed
from deltawitness.telemetry.suppression import get_context, is_instrumentation_suppressed

__all__ = ["install", "install_for_proxies", "uninstall"]

_lock = threading.RLock()
reset_in_child("_lock", globals(), threading.RLock)
_installed: tuple[Observer, DeltaLakeSeams] | None = None


def install(make_observer: Callable[[], Observer]) -> Observer:
    """Observe every write of the process, with a new observer.

    Args:
        make_observer: returns the observer.

    Raises:
        ConfigurationError: a setting in the environment is invalid; nothing was installed.
        ImportError: the engine cannot be imported.
    """
    return _install(make_observer, everything=True)


def install_for_proxies() -> Observer:
    """Return the process's observer; where there is none, create one for writes inside proxies only."""
    installed = _installed
    if installed is not None:
        return installed[0]
    import_seams()  # see _install
    with _lock:
        return _installed[0] if _installed else _install(Observer, everything=False)


def uninstall() -> None:
    """Restore the original callables, and stop the observer, which delivers the queued writes."""
    global _installed  # noqa: PLW0603 - one observer per process
    with _lock:
        set_checked(())
        _unregister()
        if _installed is not None:
            observer, seams = _installed
            seams.uninstall()
            observer.stop()
            seams.is_active = False
        _installed = None


def _install(make_observer: Callable[[], Observer], *, everything: bool) -> Observer:
    global _installed
    install_redirection(os.environ)  # where another `sitecustomize` hides the one that does it
    # Not under the lock: another thread may hold the import lock of an engine and wait for this one.
    import_seams()
    with _lock:
        uninstall()
        observer = make_observer()
        declared = load_expectations(observer.settings.expectations)
        _register(declared)

        def is_watched() -> bool:
            # As `observer.is_on`, with fewer calls: each write calls this twice. Uninstalled patches
            # observe nothing, even where another library has wrapped them and still calls them: the
            # write would be recorded twice.
            return (
                seams.is_active
                and (everything or current_write_context() is not None)
                and not is_suppressed()
                and not (get_context() and is_instrumentation_suppressed())
            )

        seams = DeltaLakeSeams(observer, is_watched)
        seams.install()
        observer.start()
        _installed, seams.is_active = (observer, seams), True
        # Only then is each write checked, and not just those inside proxies.
        set_checked(seams.replaced if everything else ())
        return observer


_declared: tuple[expect, ...] = ()


def _register(declared: tuple[expect, ...]) -> None:
    global _declared  # noqa: PLW0603 - one file per process
    _declared = declared
    for each in declared:
        each.register(is_declared=True)


def _unregister() -> None:
    global _declared  # noqa: PLW0603 - one file per process
    for each in _declared:
        each.unregister()
    _declared = ()
