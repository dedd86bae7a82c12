"""Import Hamilton without its extensions, which import every data frame library that is installed."""

from __future__ import annotations

from contextlib import suppress

import pytest

with pytest.MonkeyPatch.context() as patch, suppress(ImportError):
    patch.setenv("HAMILTON_AUTOLOAD_EXTENSIONS", "0")
    import hamilton.driver  # noqa: F401 - the first import decides whether extensions are loaded
