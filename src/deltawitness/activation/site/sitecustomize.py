"""Imported by the interpreter at its start; hands on to the next `sitecustomize`, then activates."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_here = Path(__file__).resolve().parent
_rest = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
_next = PathFinder.find_spec("sitecustomize", _rest)
if _next is not None and _next.loader is not None:
    # Whoever else customises this interpreter does so as if we were not here.
    _module = module_from_spec(_next)
    _next.loader.exec_module(_module)

try:
    from deltawitness.activation import activate
except ImportError:
    # Another interpreter, without this package: nothing to observe with.
    pass
else:
    activate()
