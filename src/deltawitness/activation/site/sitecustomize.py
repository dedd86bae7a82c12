"""Imported by the interpreter at its start: run the next `sitecustomize`, then activate deltawitness."""

import gc
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_here = Path(__file__).resolve().parent
_rest = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
_next = PathFinder.find_spec("sitecustomize", _rest)
if _next is not None and _next.loader is not None:
    # The interpreter imports only the first `sitecustomize`: run the one that this module hides.
    _module = module_from_spec(_next)
    _next.loader.exec_module(_module)

# The modules live to the end of the process. Frozen, they are in no garbage collection of the program, nor
# in those at its end. Nothing of the program itself exists yet.
_is_collecting = gc.isenabled()
gc.disable()
try:
    from deltawitness.activation import activate
except ImportError:
    # An interpreter without this package is not observed.
    pass
else:
    activate()
    gc.freeze()
finally:
    if _is_collecting:
        gc.enable()
